package activities

import (
	"context"
	"fmt"
	"path"

	"github.com/opencharacter/opencharacter/store"
)

// LinkInput has chunks that were made beside each other, in the order of their prompts, for each role's chain.
type LinkInput struct {
	Chains []Link `json:"chains"`
}

// Link is a chain and the chunks that are appended to it.
type Link struct {
	Previous *store.Ref  `json:"previous,omitempty"`
	Chunks   []store.Ref `json:"chunks"`
}

// LinkOutput has each chain's newest node.
type LinkOutput struct {
	Chains []store.Ref `json:"chains"`
}

// LinkChunks appends chunks to their chains. A chunk that runs beside others cannot know the one before it, so it is
// committed alone; its node in the chain is the same object that a chunk after the other would have written.
func (d *Data) LinkChunks(ctx context.Context, in LinkInput) (LinkOutput, error) {
	var out LinkOutput
	for _, l := range in.Chains {
		last := l.Previous
		at := 0
		if last != nil {
			n, err := getJSON[chunk](ctx, d.Store, *last)
			if err != nil {
				return out, fmt.Errorf("link chunks: %w", err)
			}
			at = n.To
		}
		for _, c := range l.Chunks {
			n, err := getJSON[chunk](ctx, d.Store, c)
			if err != nil {
				return out, fmt.Errorf("link chunks: %w", err)
			}
			if n.From != at {
				return out, fatal(StageFailed, fmt.Errorf("activities: a chunk of prompts %d to %d cannot follow prompt %d: report this, it is a bug", n.From, n.To, at))
			}
			at, n.Previous = n.To, last
			r, err := putJSON(ctx, d.Store, path.Dir(c.Key), n)
			if err != nil {
				return out, fmt.Errorf("link chunks: %w", err)
			}
			last = &r
		}
		if last == nil {
			return out, fatal(StageFailed, fmt.Errorf("activities: a chain of no chunks was to be linked: report this, it is a bug"))
		}
		out.Chains = append(out.Chains, *last)
	}
	return out, nil
}
