//go:build !noserver

package activities

import (
	"strings"
	"testing"

	"github.com/opencharacter/opencharacter/store"
)

// TestLinkedChunksAreTheChain: chunks that were made beside each other end in the very objects that one after the other
// would have written, however many are linked at once; a chunk out of its place is refused.
func TestLinkedChunksAreTheChain(t *testing.T) {
	k := newKit(t)
	const n, size = 40, 7
	teacher, student := k.chains(n, size)
	k.fresh()
	set := do[PromptSet](k, k.data.MakePrompts, MakePromptsInput{Plan: k.plan, Kind: KindPreferences})
	var t2, s2 []store.Ref
	for from := 0; from < n; from += size {
		in := ChunkInput{Plan: k.plan, Role: RoleTeacher, Prompts: set.Index, From: from, To: min(n, from+size)}
		o := do[ChunkOutput](k, k.engine.Generate, in)
		in.Role, in.Only = RoleStudent, &o.Chain
		u := do[ChunkOutput](k, k.engine.Generate, in)
		t2, s2 = append(t2, o.Chain), append(s2, u.Chain)
	}
	for _, at := range []int{1, 4, len(t2)} {
		var in LinkInput
		var out LinkOutput
		for i := 0; i < len(t2); i += at {
			in = LinkInput{Chains: []Link{{Chunks: t2[i:min(i+at, len(t2))]}, {Chunks: s2[i:min(i+at, len(s2))]}}}
			for j := range out.Chains {
				in.Chains[j].Previous = &out.Chains[j]
			}
			out = do[LinkOutput](k, k.data.LinkChunks, in)
		}
		if out.Chains[0] != *teacher || out.Chains[1] != *student {
			t.Errorf("linked by %d: chains %v, want %v and %v", at, out.Chains, *teacher, *student)
		}
	}
	_, err := try[LinkOutput](k, k.data.LinkChunks, LinkInput{Chains: []Link{{Chunks: []store.Ref{t2[0], t2[2]}}}}, nil, nil)
	if kind, ok := failure(err); !ok || kind != StageFailed || !strings.Contains(err.Error(), "cannot follow prompt 7") {
		t.Errorf("a gap: %v", err)
	}
}
