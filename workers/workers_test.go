package workers_test

import (
	"testing"

	"go.temporal.io/sdk/client"

	"github.com/opencharacter/opencharacter/lm/hub"
	"github.com/opencharacter/opencharacter/store"
	"github.com/opencharacter/opencharacter/workers"
)

func TestNew(t *testing.T) {
	c, err := client.NewLazyClient(client.Options{HostPort: "127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	key := func(string) string { return "" }
	ws, err := workers.New(c, workers.Options{Queues: workers.All(), Store: &store.Store{}, Hub: hub.Options{CacheDir: t.TempDir()}, Key: key})
	if err != nil || len(ws) != 3 {
		t.Errorf("%d workers, %v", len(ws), err)
	}
	for _, bad := range []workers.Options{
		{Queues: workers.All(), Key: key},
		{Queues: []string{"other"}, Store: &store.Store{}},
		{Queues: []string{"teacher"}, Store: &store.Store{}},
		{Queues: []string{"engine"}, Store: &store.Store{}, Hub: hub.Options{CacheDir: "/"}},
	} {
		if _, err := workers.New(c, bad); err == nil {
			t.Errorf("%+v is taken", bad)
		}
	}
}
