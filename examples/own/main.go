// Command own serves character training with a teacher, a filter and an evaluation of its own. A run asks for them by name:
//
//	character run captain --set teacher=own:phrasebook --set 'preferences.filter.own=["salty"]' --set 'evaluation.own=["sea-share"]'
//
// phrasebook.go, salty.go and seashare.go have them; own_test.go shows that they keep the rules. See README.md of the examples for
// how to run it.
package main

import (
	"context"
	"flag"
	"log"
	"os"

	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/worker"

	"github.com/opencharacter/opencharacter/activities"
	"github.com/opencharacter/opencharacter/dataset"
	"github.com/opencharacter/opencharacter/evaluation"
	"github.com/opencharacter/opencharacter/examples/internal/local"
	"github.com/opencharacter/opencharacter/lm/hub"
	"github.com/opencharacter/opencharacter/store"
	"github.com/opencharacter/opencharacter/teacher"
	"github.com/opencharacter/opencharacter/workers"
)

func main() {
	data := flag.String("data", ".character", "data directory of `character up --no-worker`")
	models := flag.String("models", "", "folder of models that runs may name")
	flag.Parse()
	if err := run(context.Background(), *data, *models); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, data, models string) error {
	stack, err := local.Find(data)
	if err != nil {
		return err
	}
	objects, err := store.Open(ctx, stack.Store())
	if err != nil {
		return err
	}
	plugin, err := workers.NewPlugin(workers.Options{Store: objects, Hub: hub.Options{CacheDir: models}, Pull: true, Key: os.Getenv,
		Own: activities.Own{Teachers: []teacher.Named{phrasebook{}}, Filters: []dataset.Filter{salty{}},
			Evaluations: []evaluation.Evaluation{seaShare{}, evaluation.Style{}}}})
	if err != nil {
		return err
	}
	c, err := client.DialContext(ctx, stack.Client(plugin))
	if err != nil {
		return err
	}
	defer c.Close()
	for _, queue := range []string{workers.DataQueue, workers.TeacherQueue, workers.EngineQueue} {
		w := worker.New(c, queue, worker.Options{})
		if err := w.Start(); err != nil {
			return err
		}
		defer w.Stop()
	}
	log.Print("serving")
	<-worker.InterruptCh()
	return nil
}
