// Command worker is the smallest program that serves character training on workers of its own: it makes the plugin, gives
// it to its Temporal client, and makes a worker on each of the three queues. Its own workflows and activities would be
// registered beside. See README.md of the examples for how to run it.
package main

import (
	"context"
	"flag"
	"log"
	"os"

	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/worker"

	"github.com/opencharacter/opencharacter/examples/internal/local"
	"github.com/opencharacter/opencharacter/lm/hub"
	"github.com/opencharacter/opencharacter/store"
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
	// From here on it is what any program does.
	plugin, err := workers.NewPlugin(workers.Options{Store: objects, Hub: hub.Options{CacheDir: models}, Pull: true, Key: os.Getenv})
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
