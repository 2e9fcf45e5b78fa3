package chat

import (
	"fmt"
	"strings"
	"time"

	"github.com/ardanlabs/jinja"
)

// strftimeLayouts are the directives of C's strftime that templates use.
var strftimeLayouts = map[byte]string{
	'Y': "2006", 'y': "06", 'm': "01", 'd': "02", 'e': "_2", 'H': "15", 'I': "03", 'M': "04", 'S': "05", 'p': "PM",
	'B': "January", 'b': "Jan", 'h': "Jan", 'A': "Monday", 'a': "Mon", 'j': "002", 'F': "2006-01-02", 'T': "15:04:05", 'Z': "MST",
}

// strftime is the template function strftime_now, pinned to one day.
func strftime(day time.Time) jinja.Value {
	return jinja.NewCallable("strftime_now", func(args []jinja.Value, _ map[string]jinja.Value) (jinja.Value, error) {
		if len(args) != 1 || !args[0].IsString() {
			return jinja.Undefined(), fmt.Errorf("strftime_now takes one text")
		}
		format := args[0].AsString()
		var b strings.Builder
		for i := 0; i < len(format); i++ {
			if format[i] != '%' || i+1 == len(format) {
				b.WriteByte(format[i])
				continue
			}
			i++
			layout, ok := strftimeLayouts[format[i]]
			switch {
			case format[i] == '%':
				b.WriteByte('%')
			case ok:
				b.WriteString(day.Format(layout))
			default:
				return jinja.Undefined(), fmt.Errorf("strftime_now: %%%c is not supported", format[i])
			}
		}
		return jinja.NewString(b.String()), nil
	})
}
