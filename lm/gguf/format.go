package gguf

import (
	"fmt"
	"slices"
	"strings"
)

// format is the storage of one tensor type: blocks of a fixed number of weights and bytes.
type format struct {
	name   string
	block  int // weights in a block
	bytes  int // bytes in a block
	widen  func(dst []float32, src []byte)
	number uint32 // ggml_type
}

// formats holds the types that we read, with the numbers of enum ggml_type.
var formats = []format{
	{"F32", 1, 4, widenF32, 0},
	{"F16", 1, 2, widenF16, 1},
	{"BF16", 1, 2, widenBF16, 30},
	{"Q8_0", 32, 34, widenQ8_0, 8},
	{"Q4_0", 32, 18, widenQ4_0, 2},
	{"Q4_1", 32, 20, widenQ4_1, 3},
	{"Q5_0", 32, 22, widenQ5_0, 6},
	{"Q5_1", 32, 24, widenQ5_1, 7},
	{"Q4_K", 256, 144, widenQ4_K, 12},
	{"Q5_K", 256, 176, widenQ5_K, 13},
	{"Q6_K", 256, 210, widenQ6_K, 14},
}

// unread names the types of ggml that we do not read, for the error message.
var unread = map[uint32]string{
	9: "Q8_1", 10: "Q2_K", 11: "Q3_K", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S",
	20: "IQ4_NL", 21: "IQ3_S", 22: "IQ2_S", 23: "IQ4_XS", 24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64",
	29: "IQ1_M", 34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4",
}

// formatOf finds the format of a ggml type number.
func formatOf(number uint32) (format, error) {
	i := slices.IndexFunc(formats, func(f format) bool { return f.number == number })
	if i >= 0 {
		return formats[i], nil
	}
	known := make([]string, len(formats))
	for i, f := range formats {
		known[i] = f.name
	}
	what := fmt.Sprintf("type number %d is unknown", number)
	if name, ok := unread[number]; ok {
		what = fmt.Sprintf("type %s is not supported", name)
	}
	return format{}, fmt.Errorf("%s; use a file quantised with %s", what, strings.Join(known, ", "))
}
