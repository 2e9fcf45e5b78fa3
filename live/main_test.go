//go:build !noserver

package live_test

import (
	"testing"

	"github.com/opencharacter/opencharacter/testenv/s3server"
)

func TestMain(m *testing.M) { s3server.Main(m) }
