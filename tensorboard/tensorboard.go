// Package tensorboard writes scalars as TensorBoard reads them: an event file, which is a file of TFRecords, each a protocol
// buffer of the type Event.
//
// It knows no run and no folder; who calls it names the file ([Name]) and gives the times, so that equal values make equal
// bytes. Start reading at Writer.
package tensorboard

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

// Scalar is one value of one tag at one step.
type Scalar struct {
	Tag   string
	Step  int64
	Value float64 // kept as a 32-bit float, as TensorBoard does
	At    time.Time
}

// Fields of the messages Event, Summary and Summary.Value.
const (
	eventWallTime, eventStep, eventVersion, eventSummary = 1, 2, 3, 5
	summaryValue                                         = 1
	valueTag, valueSimple                                = 1, 2
)

// version is what the first event of every file says.
const version = "brain.Event:2"

// maxTag bounds a tag, in bytes.
const maxTag = 1 << 10

// Writer appends events to a file.
type Writer struct {
	w   io.Writer
	err error
}

// NewWriter begins a file; began is the time of its first event.
func NewWriter(w io.Writer, began time.Time) (*Writer, error) {
	x := &Writer{w: w}
	x.record(protowire.AppendString(protowire.AppendTag(event(began, 0), eventVersion, protowire.BytesType), version))
	return x, x.err
}

// Write appends one value. A value that is not finite is kept as it is: TensorBoard shows it as such.
func (w *Writer) Write(s Scalar) error {
	if s.Tag == "" || len(s.Tag) > maxTag {
		return fmt.Errorf("tensorboard: a tag of %d bytes; want 1 to %d", len(s.Tag), maxTag)
	}
	value := protowire.AppendString(protowire.AppendTag(nil, valueTag, protowire.BytesType), s.Tag)
	value = protowire.AppendFixed32(protowire.AppendTag(value, valueSimple, protowire.Fixed32Type), math.Float32bits(float32(s.Value)))
	summary := protowire.AppendBytes(protowire.AppendTag(nil, summaryValue, protowire.BytesType), value)
	w.record(protowire.AppendBytes(protowire.AppendTag(event(s.At, s.Step), eventSummary, protowire.BytesType), summary))
	return w.err
}

func event(at time.Time, step int64) []byte {
	b := protowire.AppendFixed64(protowire.AppendTag(nil, eventWallTime, protowire.Fixed64Type), math.Float64bits(float64(at.UnixNano())/1e9))
	if step != 0 {
		b = protowire.AppendVarint(protowire.AppendTag(b, eventStep, protowire.VarintType), uint64(step))
	}
	return b
}

// record frames data: its length, the length's checksum, data, its checksum.
func (w *Writer) record(data []byte) {
	if w.err != nil {
		return
	}
	b := binary.LittleEndian.AppendUint64(nil, uint64(len(data)))
	b = binary.LittleEndian.AppendUint32(b, masked(b))
	b = append(b, data...)
	b = binary.LittleEndian.AppendUint32(b, masked(data))
	_, w.err = w.w.Write(b)
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// masked is a TFRecord's checksum: one that is stored beside what it is of must not be a plain CRC.
func masked(b []byte) uint32 {
	c := crc32.Checksum(b, castagnoli)
	return (c>>15 | c<<17) + 0xa282ead8
}

// Name is the name by which TensorBoard finds a file. who tells files of one second apart; it must hold no slash.
func Name(began time.Time, who string) string {
	return fmt.Sprintf("events.out.tfevents.%d.%s", began.Unix(), who)
}

// ErrDamaged is what errors.Is finds where a file does not read as an event file.
var ErrDamaged = errors.New("not a whole event file")

// maxRecord bounds a record that is read, in bytes. One of ours has less than 2 KB.
const maxRecord = 1 << 20

// Read gives the scalars of an event file. What it does not know (other kinds of summaries) is passed over; a file that is cut
// or changed is ErrDamaged, as is one that says no version or another.
func Read(r io.Reader) ([]Scalar, error) {
	var out []Scalar
	for first := true; ; first = false {
		data, err := readRecord(r)
		if errors.Is(err, io.EOF) && !first {
			return out, nil
		}
		if errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("tensorboard: %w: it is empty", ErrDamaged)
		}
		if err != nil {
			return nil, err
		}
		said, scalars, err := parse(data)
		if err != nil {
			return nil, err
		}
		if first && said != version {
			return nil, fmt.Errorf("tensorboard: %w: its version is %.40q, want %q", ErrDamaged, said, version)
		}
		out = append(out, scalars...)
	}
}

func readRecord(r io.Reader) ([]byte, error) {
	var head [12]byte
	switch _, err := io.ReadFull(r, head[:]); {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return nil, fmt.Errorf("tensorboard: %w: it is cut in a record's head", ErrDamaged)
	case err != nil:
		return nil, err
	}
	n := binary.LittleEndian.Uint64(head[:])
	if binary.LittleEndian.Uint32(head[8:]) != masked(head[:8]) || n > maxRecord {
		return nil, fmt.Errorf("tensorboard: %w: a record's length does not fit its checksum, or is over %d bytes", ErrDamaged, maxRecord)
	}
	data := make([]byte, n+4)
	if _, err := io.ReadFull(r, data); err != nil {
		return nil, fmt.Errorf("tensorboard: %w: it is cut in a record of %d bytes", ErrDamaged, n)
	}
	if binary.LittleEndian.Uint32(data[n:]) != masked(data[:n]) {
		return nil, fmt.Errorf("tensorboard: %w: a record does not fit its checksum", ErrDamaged)
	}
	return data[:n], nil
}

// parse reads an Event.
func parse(b []byte) (said string, out []Scalar, err error) {
	var at time.Time
	var step int64
	var values [][]byte
	err = fields(b, func(f protowire.Number, v []byte, n uint64) error {
		switch f {
		case eventWallTime:
			at = clock(math.Float64frombits(n))
		case eventStep:
			step = int64(n)
		case eventVersion:
			said = string(v)
		case eventSummary:
			return fields(v, func(f protowire.Number, v []byte, _ uint64) error {
				if f == summaryValue {
					values = append(values, v)
				}
				return nil
			})
		}
		return nil
	})
	for _, v := range values {
		s, simple := Scalar{Step: step, At: at}, false
		if err == nil {
			err = fields(v, func(f protowire.Number, v []byte, n uint64) error {
				switch f {
				case valueTag:
					s.Tag = string(v)
				case valueSimple:
					s.Value, simple = float64(math.Float32frombits(uint32(n))), true
				}
				return nil
			})
		}
		if simple {
			out = append(out, s)
		}
	}
	return said, out, err
}

// clock is a time of seconds since 1970; the zero time where that is none.
func clock(seconds float64) time.Time {
	if !(math.Abs(seconds) < 1<<33) {
		return time.Time{}
	}
	whole, part := math.Modf(seconds)
	return time.Unix(int64(whole), int64(math.Round(part*1e6))*1e3)
}

// fields calls f for each field of a message: with its bytes, or its number.
func fields(b []byte, f func(protowire.Number, []byte, uint64) error) error {
	for len(b) > 0 {
		num, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return fmt.Errorf("tensorboard: %w: %w", ErrDamaged, protowire.ParseError(n))
		}
		b = b[n:]
		var bytes []byte
		var number uint64
		switch kind {
		case protowire.BytesType:
			bytes, n = protowire.ConsumeBytes(b)
		case protowire.VarintType:
			number, n = protowire.ConsumeVarint(b)
		case protowire.Fixed64Type:
			number, n = protowire.ConsumeFixed64(b)
		case protowire.Fixed32Type:
			var short uint32
			short, n = protowire.ConsumeFixed32(b)
			number = uint64(short)
		default:
			n = protowire.ConsumeFieldValue(num, kind, b)
		}
		if n < 0 {
			return fmt.Errorf("tensorboard: %w: %w", ErrDamaged, protowire.ParseError(n))
		}
		b = b[n:]
		if err := f(num, bytes, number); err != nil {
			return err
		}
	}
	return nil
}
