package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/opencharacter/opencharacter/cmd/internal/cluster"
	"github.com/opencharacter/opencharacter/codec"
	"github.com/opencharacter/opencharacter/testenv/stack"
)

func codecCmd() *cobra.Command {
	var listen string
	var origins []string
	var keyFile string
	c := &cobra.Command{
		Use:   "codec",
		Short: "Show encrypted payloads in the Temporal UI",
		Long: `Decrypt payloads for the Temporal UI in a browser on this machine, until Ctrl-C. In the UI enter the printed address
as the codec endpoint (the glasses icon). Only pages of the named origins are answered, and only on loopback: the
endpoint has no password. "character up --codec-key-file FILE" does all this by itself.

"character codec new-key FILE" makes a key file. Every worker and every client of a run needs it (--codec-key-file or
CHARACTER_CODEC_KEY_FILE). Keep a copy: without it nobody can read or go on with the runs.`,
		Example: "  character codec new-key codec.key\n  character codec --key-file codec.key --origin http://127.0.0.1:8080",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			path := cmp.Or(keyFile, settings(cmd).CodecKeyFile)
			if path == "" {
				return usage(errors.New("name the key file with --key-file; `character codec new-key FILE` makes one"))
			}
			if len(origins) == 0 {
				info, alive, err := stack.Read(dataDir(cmd))
				if err != nil {
					return err
				}
				if !alive || info.UI == "" {
					return usage(errors.New("name the address of the Temporal UI with --origin, e.g. --origin http://127.0.0.1:8233"))
				}
				origins = uiOrigins(info.UI)
			}
			s, err := listenCodec(listen, path, cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			if err := s.serve(origins); err != nil {
				return errors.Join(err, s.stop())
			}
			fmt.Fprintf(cmd.OutOrStdout(), "Codec endpoint %s for pages of %s\n", s.url, strings.Join(origins, ", "))
			select {
			case <-cmd.Context().Done():
			case err = <-s.failed:
			}
			return errors.Join(err, s.stop())
		},
	}
	c.Flags().StringVar(&listen, "listen", "127.0.0.1:8234", "loopback address and port")
	c.Flags().StringArrayVar(&origins, "origin", nil, "address of the Temporal UI whose pages may ask (repeatable; default: that of the local stack)")
	c.Flags().StringVar(&keyFile, "key-file", "", "key file; the same as --"+cluster.CodecKeyFile)
	c.AddCommand(newKeyCmd())
	return c
}

func newKeyCmd() *cobra.Command {
	var id string
	c := &cobra.Command{
		Use:   "new-key FILE",
		Short: "Make a key file, or put a new key on top of one",
		Long: `Make a key file with one random key, for the owner's eyes only. On a file that is there a new key is put on top: it
encrypts from then on, the older ones still decrypt. Give the changed file to every worker and client, then restart
the workers; take an old line away when no run needs it any more.`,
		Example: "  character codec new-key keys.txt",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if id == "" {
				id = "key-" + time.Now().UTC().Format("20060102-150405")
			}
			if err := codec.NewKey(args[0], id); err != nil {
				return err
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s encrypts with key %s now. Keep a copy of the file: nobody can read the runs without it.\n", args[0], id)
			return err
		},
	}
	c.Flags().StringVar(&id, "id", "", "name of the key (default: the time)")
	return c
}

// uiOrigins are the names under which a browser on this machine opens the UI.
func uiOrigins(ui string) []string {
	ui = strings.TrimSuffix(ui, "/")
	return []string{ui, strings.Replace(ui, "//127.0.0.1:", "//localhost:", 1)}
}

// codecServer decrypts for a browser on this machine.
type codecServer struct {
	url    string
	keys   *codec.Keys
	l      net.Listener
	server *http.Server
	failed chan error
}

// listenCodec takes the address before anything is served: the UI's pages and this endpoint name each other.
func listenCodec(address, keyFile string, warn io.Writer) (*codecServer, error) {
	k, err := cluster.ReadKeys(keyFile, warn)
	if err != nil {
		return nil, err
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, usage(fmt.Errorf("--listen %q: want 127.0.0.1:PORT", address))
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return nil, usage(fmt.Errorf("--listen %s: not a loopback address, and refused: the endpoint decrypts for everybody who reaches it. Use 127.0.0.1:PORT, with an ssh tunnel from elsewhere", address))
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("codec endpoint: %w; choose another port", err)
	}
	return &codecServer{url: "http://" + l.Addr().String(), keys: k, l: l, failed: make(chan error, 1)}, nil
}

func (s *codecServer) serve(origins []string) error {
	h, err := codec.Handler(s.keys, origins)
	if err != nil {
		return usage(err)
	}
	s.server = &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: time.Minute, WriteTimeout: time.Minute, IdleTimeout: 2 * time.Minute}
	go func() {
		if err := s.server.Serve(s.l); !errors.Is(err, http.ErrServerClosed) {
			s.failed <- fmt.Errorf("codec endpoint: %w", err)
		}
	}()
	return nil
}

// stop ends it; a nil server has nothing to end.
func (s *codecServer) stop() error {
	switch {
	case s == nil:
		return nil
	case s.server == nil:
		return s.l.Close()
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := s.server.Shutdown(ctx); err != nil {
		return s.server.Close()
	}
	return nil
}
