package dataset

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"
)

// TestCheckLists: each type is walked over whole, and what the bytes cannot hold is refused.
func TestCheckLists(t *testing.T) {
	huge := binary.AppendUvarint(nil, 1<<40)
	deep := append(bytes.Repeat([]byte{0x1c}, maxThrift+1), make([]byte, maxThrift+1)...)
	for name, c := range map[string]struct {
		data []byte
		ok   bool
	}{
		"nothing in it":            {[]byte{0}, true},
		"all types":                {[]byte{0x11, 0x12, 0x13, 7, 0x14, 2, 0x15, 0x80, 1, 0x16, 2, 0x17, 0, 0, 0, 0, 0, 0, 0, 0, 0x18, 2, 'a', 'b', 0x1c, 0, 0}, true},
		"number of the field":      {[]byte{0x05, 40, 2, 0}, true},
		"bytes behind it":          {[]byte{0, 9, 9}, true},
		"list of numbers":          {[]byte{0x19, 0x25, 1, 2, 0}, true},
		"list of truths":           {[]byte{0x19, 0x21, 1, 2, 0}, true},
		"list of structs":          {[]byte{0x19, 0x2c, 0x1c, 0, 0, 0x1c, 0, 0, 0}, true},
		"empty map":                {[]byte{0x1b, 0, 0}, true},
		"map":                      {[]byte{0x1b, 1, 0x58, 3, 1, 'x', 0}, true},
		"no end":                   {[]byte{0x15, 2}, false},
		"nothing":                  {nil, false},
		"unknown type":             {[]byte{0x1e, 0}, false},
		"text that is too long":    {[]byte{0x18, 9, 'a', 0}, false},
		"huge text":                {append([]byte{0x18}, huge...), false},
		"huge list":                {append([]byte{0x19, 0xfc}, append(huge, 0, 0, 0, 0)...), false},
		"huge list of numbers":     {append([]byte{0x19, 0xf5}, append(huge, 0, 0, 0, 0)...), false},
		"huge map":                 {append([]byte{0x1b}, append(huge, 0x55, 0, 0, 0)...), false},
		"structs of nothing":       {append([]byte{0x19, 0xfc, 100}, make([]byte, 120)...), false},
		"number that does not end": {append([]byte{0x15}, bytes.Repeat([]byte{0xff}, 20)...), false},
		"deep":                     {deep, false},
	} {
		if err := checkLists(c.data); (err == nil) != c.ok || err != nil && !errors.Is(err, errThrift) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
