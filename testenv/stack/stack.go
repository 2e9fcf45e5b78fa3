// Package stack runs all that a character run needs on one machine under one data directory: a Temporal server with
// its Web UI, and an S3 server. It is what `character up` starts.
//
//	DIR/temporal/          the Temporal server's file
//	DIR/s3/                buckets and objects, as plain files
//	DIR/logs/              one log for each server, and stack.log for restarts
//	DIR/stack.json         addresses and process id of the stack that runs here, or ran last
//	DIR/credentials.json   the S3 keys, made at the first start
//	DIR/lock               held while the stack lives
//
// All of it is for its owner only: folders have mode 0700 and files 0600, or the protection of their folder.
//
// Up starts it, Read finds it from another process. Everything survives kill -9 of any process: start it again on the
// same directory. It knows nothing of workers, models or runs, and reads no environment.
package stack

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/opencharacter/opencharacter/testenv/s3server"
	"github.com/opencharacter/opencharacter/testenv/temporalserver"
)

// Options says where the stack lives. Ports that are 0 are those of the last start when they are still free.
type Options struct {
	Dir string // required; made when missing

	// A port given here must be free. 0: the port of the last start if it is free, else any.
	TemporalPort, HTTPPort, UIPort, S3Port int
	// UsualPorts makes a first start try Temporal's usual ports 7233, 7243 and 8233, and 9000 for S3, before any other.
	UsualPorts bool

	// Exe and S3Args start the S3 server's process, which must call s3server.ServeChild.
	// Empty: this program with the argument _s3.
	Exe    string
	S3Args []string
	S3Env  []string // added to its environment

	Namespace        string            // of Temporal; empty means "default"
	CodecEndpoint    string            // URL at which the UI has payloads decrypted; empty: none
	SearchAttributes map[string]string // name -> type, as in temporalserver.Options
}

// Stack is a living stack.
type Stack struct {
	Info
	temporal *temporalserver.Server
	s3       *s3
	unlock   func() error
	stop     sync.Once
	stopErr  error
}

// Up starts the stack and returns when both servers answer. When a stack lives on the directory already, the error
// is an *InUseError that tells where. On any error nothing is left running. ctx bounds the start only.
func Up(ctx context.Context, o Options) (s *Stack, err error) {
	if o.Dir == "" {
		return nil, errors.New("stack: Options.Dir is empty: name a data directory")
	}
	if o.Dir, err = filepath.Abs(o.Dir); err != nil {
		return nil, fmt.Errorf("stack: data directory: %w", err)
	}
	if err := privateDirs(o.Dir, "logs", "s3", "temporal"); err != nil {
		return nil, err
	}
	s = &Stack{}
	if s.unlock, err = takeLock(ctx, o.Dir); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
			defer cancel()
			err = errors.Join(err, s.Stop(stop))
			s = nil
		}
	}()
	last, err := readState(o.Dir)
	if err != nil {
		return s, err
	}
	keys, err := ensureCredentials(o.Dir)
	if err != nil {
		return s, err
	}
	s.Info = last
	s.Dir, s.Namespace, s.Bucket = o.Dir, cmp.Or(o.Namespace, "default"), Bucket
	s.AccessKey, s.SecretKey = keys.AccessKey, keys.SecretKey
	s.PID, s.Started, s.Ready = os.Getpid(), time.Now().UTC(), false
	if err := writeState(s.Info); err != nil { // from here on others know whom to wait for
		return s, err
	}
	if err := again(func() (err error) {
		port := pickPort(o.S3Port, portOf(last.S3), 9000, o.UsualPorts)
		s.s3, err = startS3(ctx, o, keys, net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		return err
	}); err != nil {
		return s, err
	}
	s.S3 = s.s3.endpoint
	if err := again(func() (err error) {
		s.temporal, err = temporalserver.Start(ctx, temporalserver.Options{
			Dir: filepath.Join(o.Dir, "temporal"), LogFile: filepath.Join(o.Dir, "logs", "temporal.log"),
			GRPCPort:  pickPort(o.TemporalPort, portOf(last.Temporal), 7233, o.UsualPorts),
			HTTPPort:  pickPort(o.HTTPPort, portOf(last.TemporalHTTP), 7243, o.UsualPorts),
			UIPort:    pickPort(o.UIPort, portOf(last.UI), 8233, o.UsualPorts),
			Namespace: s.Namespace, SearchAttributes: o.SearchAttributes, CodecEndpoint: o.CodecEndpoint, Owner: string(s.Headers()),
		})
		return err
	}); err != nil {
		return s, fmt.Errorf("stack: %w", err)
	}
	s.Temporal, s.TemporalHTTP, s.UI = s.temporal.Address, s.temporal.HTTPAddress, s.temporal.UIURL
	s.Ready = true
	return s, writeState(s.Info)
}

// Failed is closed when the Temporal server cannot go on; Err tells why. The S3 server is started again by itself.
func (s *Stack) Failed() <-chan struct{} { return s.temporal.Failed() }

// Err is the error behind Failed.
func (s *Stack) Err() error { return s.temporal.Err() }

// Stop ends both servers, Temporal first because its workers write to S3, and gives the directory free.
// Later calls give the same answer.
func (s *Stack) Stop(ctx context.Context) error {
	s.stop.Do(func() {
		var err error
		if s.temporal != nil {
			err = s.temporal.Stop(ctx)
		}
		if s.s3 != nil {
			err = errors.Join(err, s.s3.stop())
		}
		if s.Dir != "" {
			s.PID, s.Ready = 0, false
			err = errors.Join(err, writeState(s.Info))
		}
		s.stopErr = errors.Join(err, s.unlock())
	})
	return s.stopErr
}

// again starts something a few times more when the port that was free when it was picked is not free any more: another
// stack that starts at the same moment took it. A port that the user wished stays taken, and the error stays.
func again(start func() error) (err error) {
	for range 5 {
		if err = start(); !errors.Is(err, temporalserver.ErrPortInUse) && !errors.Is(err, s3server.ErrPortInUse) {
			return err
		}
	}
	return err
}

// pickPort is the wished port; or the last one, or the usual one, if nobody has it now; or 0 for any.
func pickPort(wished, last, usual int, tryUsual bool) int {
	if wished != 0 {
		return wished
	}
	if last != 0 && isFree(last) {
		return last
	}
	if last == 0 && tryUsual && isFree(usual) {
		return usual
	}
	return 0
}

func isFree(port int) bool {
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	return err == nil && l.Close() == nil
}
