package tensorboard_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/opencharacter/opencharacter/tensorboard"
)

var began = time.Unix(1_700_000_000, 250_000_000)

func write(t testing.TB, scalars ...tensorboard.Scalar) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := tensorboard.NewWriter(&b, began)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range scalars {
		if err := w.Write(s); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	want := []tensorboard.Scalar{
		{Tag: "loss", Step: 1, Value: math.Ln2, At: began},
		{Tag: "loss", Step: 2, Value: -1e-30, At: began.Add(time.Second)},
		{Tag: "é/accuracy", Step: 1 << 40, Value: .5, At: began},
		{Tag: "inf", Value: math.Inf(1), At: began},
		{Tag: strings.Repeat("t", 1024), Step: 0, Value: 0, At: began},
	}
	got, err := tensorboard.Read(bytes.NewReader(write(t, want...)))
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != len(want) {
		t.Fatalf("%d scalars, want %d", len(got), len(want))
	}
	for i, g := range got {
		w := want[i]
		if g.Tag != w.Tag || g.Step != w.Step || float32(g.Value) != float32(w.Value) || !g.At.Equal(w.At) {
			t.Errorf("%d: %+v, want %+v", i, g, w)
		}
	}
}

// TestBytes: the format is fixed, byte for byte. The masked checksum of the first length, 24, is that which every event file
// begins with whose first event has a wall time and this version.
func TestBytes(t *testing.T) {
	t.Parallel()
	b := write(t)
	head, err := hex.DecodeString("1800000000000000a37f4b22")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.HasPrefix(b, head) || len(b) != 12+24+4 || !bytes.HasSuffix(b[:36], []byte("\x1a\x0dbrain.Event:2")) {
		t.Errorf("% x", b)
	}
	if !bytes.Equal(write(t, tensorboard.Scalar{Tag: "x", At: began}), write(t, tensorboard.Scalar{Tag: "x", At: began})) {
		t.Error("equal values, other bytes")
	}
	if got, want := tensorboard.Name(began, "ab"), "events.out.tfevents.1700000000.ab"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	var sink bytes.Buffer
	w, err := tensorboard.NewWriter(&sink, began)
	if err != nil {
		t.Fatal(err)
	}
	for _, tag := range []string{"", strings.Repeat("x", 1025)} {
		if err := w.Write(tensorboard.Scalar{Tag: tag}); err == nil {
			t.Errorf("a tag of %d bytes was taken", len(tag))
		}
	}
	whole := write(t, tensorboard.Scalar{Tag: "loss", Step: 1, Value: 2, At: began})
	for i := range whole {
		changed := bytes.Clone(whole)
		changed[i] ^= 1
		if _, err := tensorboard.Read(bytes.NewReader(changed)); !errors.Is(err, tensorboard.ErrDamaged) {
			t.Errorf("byte %d changed: %v", i, err)
		}
		_, err := tensorboard.Read(bytes.NewReader(whole[:i]))
		if wantEnd := i == 40; (err == nil) != wantEnd || !wantEnd && !errors.Is(err, tensorboard.ErrDamaged) {
			t.Errorf("cut at %d: %v", i, err)
		}
	}
	full := &fullDisk{}
	if w, err := tensorboard.NewWriter(full, began); err == nil {
		t.Errorf("a full disk: %v", w.Write(tensorboard.Scalar{Tag: "x"}))
	}
}

type fullDisk struct{}

func (*fullDisk) Write([]byte) (int, error) { return 0, errors.New("no space") }

func FuzzRead(f *testing.F) {
	f.Add(write(f))
	f.Add(write(f, tensorboard.Scalar{Tag: "loss", Step: 3, Value: 1, At: began}))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		scalars, err := tensorboard.Read(bytes.NewReader(b))
		if err != nil && !errors.Is(err, tensorboard.ErrDamaged) {
			t.Errorf("%v", err)
		}
		if len(scalars) > len(b) {
			t.Errorf("%d scalars of %d bytes", len(scalars), len(b))
		}
	})
}

// FuzzEvent puts any bytes into a record with right checksums, which chance would not find.
func FuzzEvent(f *testing.F) {
	f.Add([]byte{})
	f.Add(write(f, tensorboard.Scalar{Tag: "loss", Step: 3, Value: 1, At: began})[40+12:])
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 1<<16 {
			return
		}
		scalars, err := tensorboard.Read(bytes.NewReader(append(write(t), tensorboard.Record(b)...)))
		if err != nil && !errors.Is(err, tensorboard.ErrDamaged) {
			t.Errorf("%v", err)
		}
		for _, s := range scalars {
			if s.Tag == "" || len(s.Tag) > 1024 {
				continue // not ours to write
			}
			again, err := tensorboard.Read(bytes.NewReader(write(t, s)))
			if err != nil || len(again) != 1 || again[0].Tag != s.Tag || again[0].Step != s.Step || math.Float64bits(again[0].Value) != math.Float64bits(s.Value) {
				t.Errorf("%+v became %+v, %v", s, again, err)
			}
		}
	})
}
