package temporalserver

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"

	uiserver "github.com/temporalio/ui-server/v2/server"
	uiconfig "github.com/temporalio/ui-server/v2/server/config"
	uioptions "github.com/temporalio/ui-server/v2/server/server_options"
)

// startUI serves the Web UI, whose pages are built into the program. It talks to nothing but our frontend.
func startUI(o Options, p ports) *uiserver.Server {
	ui := uiserver.NewServer(uioptions.WithConfigProvider(&uiconfig.Config{
		Host: o.IP, Port: p.ui, TemporalGRPCAddress: p.address(o.IP, p.grpc),
		EnableUI: true, DefaultNamespace: o.Namespace, HideLogs: true, DisableNewsFetch: true,
		Codec: uiconfig.Codec{Endpoint: o.CodecEndpoint},
		CORS:  uiconfig.CORS{CookieInsecure: true}, // plain http on loopback
	}))
	// It returns nil after Stop; when it cannot listen it ends the process itself, which choosePorts has ruled out.
	go ui.Start() //nolint:errcheck // see above
	return ui
}

// uiReady waits until the UI serves its page and reaches the frontend behind it.
func (s *Server) uiReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for _, path := range []string{"/", "/api/v1/cluster-info"} {
		err := s.retry(ctx, func(ctx context.Context) error { return get(ctx, s.UIURL+path) })
		if err != nil {
			return fmt.Errorf("temporal: the Web UI does not become ready: %w", err)
		}
	}
	return nil
}

func get(ctx context.Context, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, res.Body)
	if cerr := res.Body.Close(); err == nil {
		err = cerr
	}
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("GET %s: %s", url, res.Status)
	}
	return err
}
