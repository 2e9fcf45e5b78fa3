// Command pipeline has a workflow of its own that trains a character as a child workflow, looks at what came out, and says
// whether it is good enough to be used: a step in somebody's larger pipeline. It serves everything that this needs, starts
// the workflow once, waits and prints the verdict. See README.md of the examples for how to run it.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"os"
	"time"

	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/worker"

	"github.com/opencharacter/opencharacter/examples/internal/local"
	"github.com/opencharacter/opencharacter/lm/hub"
	"github.com/opencharacter/opencharacter/store"
	"github.com/opencharacter/opencharacter/workers"
)

func main() {
	data := flag.String("data", ".character", "data directory of `character up --no-worker`")
	models := flag.String("models", "", "folder of models that the spec may name")
	id := flag.String("id", "pipeline", "id of the workflow")
	spec := flag.String("spec", `{"constitution":"captain"}`, "what to train, as JSON")
	least := flag.Float64("least", 0, "held-out gain that is good enough, in nats a token")
	flag.Parse()
	if err := run(context.Background(), *data, *models, *id, Order{Spec: json.RawMessage(*spec), Least: *least}); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, data, models, id string, order Order) error {
	stack, err := local.Find(data)
	if err != nil {
		return err
	}
	objects, err := store.Open(ctx, stack.Store())
	if err != nil {
		return err
	}
	plugin, err := workers.NewPlugin(workers.Options{Store: objects, Hub: hub.Options{CacheDir: models}, Pull: true, Key: os.Getenv})
	if err != nil {
		return err
	}
	c, err := client.DialContext(ctx, stack.Client(plugin))
	if err != nil {
		return err
	}
	defer c.Close()
	for _, queue := range []string{workers.DataQueue, workers.TeacherQueue, workers.EngineQueue, Queue} {
		w := worker.New(c, queue, worker.Options{})
		if queue == Queue { // the plugin leaves it alone
			w.RegisterWorkflow(TrainAndJudge)
			w.RegisterActivity(&Judge{Store: objects})
		}
		if err := w.Start(); err != nil {
			return err
		}
		defer w.Stop()
	}
	started, err := c.ExecuteWorkflow(ctx, client.StartWorkflowOptions{ID: id, TaskQueue: Queue, WorkflowExecutionTimeout: 24 * time.Hour}, TrainAndJudge, order)
	if err != nil {
		return err
	}
	var v Verdict
	if err := started.Get(ctx, &v); err != nil {
		return err
	}
	fmt.Println(v)
	return nil
}
