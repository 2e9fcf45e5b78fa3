package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	commonpb "go.temporal.io/api/common/v1"
	"google.golang.org/protobuf/proto"

	"github.com/opencharacter/opencharacter/codec"
	"github.com/opencharacter/opencharacter/store"
)

// keyFolder of the bucket has an object for each key with which runs were encrypted: a known text, sealed with it.
const keyFolder = "codec"

// CheckKeys compares the keys at hand with those of the bucket's runs before any run is touched: a worker that could not
// read a run's input would end that run as failed. It notes the keys when they are new and mayAdd says so (a worker,
// or the local stack); else there must be a worker that has noted them.
func CheckKeys(ctx context.Context, s *store.Store, k *codec.Keys, mayAdd bool) error {
	objects, err := s.List(ctx, keyFolder+"/")
	if err != nil {
		return err
	}
	noted := map[string]bool{}
	for _, o := range objects {
		id := strings.TrimPrefix(o.Key, keyFolder+"/")
		noted[id] = true
		if !slices.Contains(k.IDs(), id) {
			what := "give the key file with --codec-key-file (CHARACTER_CODEC_KEY_FILE)"
			if k != nil {
				what = "add that key's line to the key file"
			}
			return fmt.Errorf("runs of %s are encrypted with key %s, which is not at hand: %s; when no run needs that key any more, delete the object %s", s.Where(), id, what, o.Key)
		}
	}
	for _, id := range k.IDs() {
		if !noted[id] && !mayAdd {
			return fmt.Errorf("no worker on %s has the key %s: start the workers with this key file first (--codec-key-file), or leave it out here", s.Where(), id)
		}
		if err := checkKey(ctx, s, k, id); err != nil {
			return err
		}
	}
	return nil
}

func checkKey(ctx context.Context, s *store.Store, k *codec.Keys, id string) error {
	key := keyFolder + "/" + id
	sealed, err := s.GetKey(ctx, key)
	if errors.Is(err, store.ErrNotFound) {
		p, serr := k.Only(id).Encode([]*commonpb.Payload{{Data: []byte("opencharacter")}})
		if serr != nil {
			return serr
		}
		if sealed, serr = proto.Marshal(p[0]); serr != nil {
			return fmt.Errorf("note key %s: %w", id, serr)
		}
		_, err = s.PutKey(ctx, key, sealed)
		if !errors.Is(err, store.ErrConflict) {
			return err
		}
		sealed, err = s.GetKey(ctx, key) // another worker was first
	}
	if err != nil {
		return err
	}
	var p commonpb.Payload
	if err := proto.Unmarshal(sealed, &p); err != nil {
		return fmt.Errorf("object %s: %w", key, err)
	}
	if _, err := k.Decode([]*commonpb.Payload{&p}); err != nil {
		return fmt.Errorf("the key file is not that of the runs on %s: %w", s.Where(), err)
	}
	return nil
}
