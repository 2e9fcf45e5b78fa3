package workers_test

import (
	"log"
	"os"

	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/worker"

	"github.com/opencharacter/opencharacter/activities"
	"github.com/opencharacter/opencharacter/evaluation"
	"github.com/opencharacter/opencharacter/lm/hub"
	"github.com/opencharacter/opencharacter/store"
	"github.com/opencharacter/opencharacter/workers"
)

var objects *store.Store // of store.Open

// A program's own worker, with our stages and an evaluation that specs may name.
func ExampleNewPlugin() {
	plugin, err := workers.NewPlugin(workers.Options{Store: objects, Hub: hub.Options{CacheDir: "/models"}, Key: os.Getenv,
		Own: activities.Own{Evaluations: []evaluation.Evaluation{evaluation.Style{}}}})
	if err != nil {
		log.Fatal(err)
	}
	c, err := client.Dial(client.Options{Plugins: []client.Plugin{plugin}})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	w := worker.New(c, workers.DataQueue, worker.Options{})
	w.RegisterWorkflow(mine) // beside ours
	if err := w.Run(worker.InterruptCh()); err != nil {
		log.Fatal(err)
	}
}
