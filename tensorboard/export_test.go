package tensorboard

import "bytes"

// Record frames any bytes.
func Record(data []byte) []byte {
	var b bytes.Buffer
	(&Writer{w: &b}).record(data)
	return b.Bytes()
}
