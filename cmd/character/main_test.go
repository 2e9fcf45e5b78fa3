package main

import (
	"testing"

	"github.com/opencharacter/opencharacter/testenv/s3server"
)

// TestMain lets this test binary be the S3 server's process too.
func TestMain(m *testing.M) { s3server.Main(m) }
