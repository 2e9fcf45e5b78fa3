//go:build !noserver

package store_test

import (
	"crypto/tls"
	"crypto/x509"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/opencharacter/opencharacter/store"
)

// secure puts TLS in front of the tests' server. needCert asks clients for the certificate that it uses itself.
func secure(t *testing.T, endpoint string, needCert bool) *httptest.Server {
	t.Helper()
	to, err := url.Parse(endpoint)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(to)
		r.Out.Host = r.In.Host // it is signed
	}})
	if needCert {
		s.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert, MinVersion: tls.VersionTLS12}
	}
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

func TestTLS(t *testing.T) {
	t.Parallel()
	base := config(t)
	for _, mutual := range []bool{false, true} {
		proxy := secure(t, base.Endpoint, mutual)
		c := base
		c.Endpoint, c.MaxAttempts, c.CallTimeout = proxy.URL, 1, 20*time.Second
		if _, err := store.Open(t.Context(), c); err == nil {
			t.Error("an unknown authority is trusted")
		}
		c.TLS = &tls.Config{RootCAs: x509.NewCertPool(), MinVersion: tls.VersionTLS12}
		c.TLS.RootCAs.AddCert(proxy.Certificate())
		if mutual {
			if _, err := store.Open(t.Context(), c); err == nil {
				t.Error("connects without a client certificate")
			}
			c.TLS.Certificates = proxy.TLS.Certificates
		}
		s, err := store.Open(t.Context(), c)
		if err != nil {
			t.Fatalf("mutual %v: %v", mutual, err)
		}
		r, err := s.Put(t.Context(), "parts", ".bin", []byte("hello"))
		if err != nil {
			t.Fatal(err)
		}
		if b, err := s.Get(t.Context(), r); err != nil || string(b) != "hello" {
			t.Errorf("%q %v", b, err)
		}
	}
}

func TestTLSRefusals(t *testing.T) {
	t.Parallel()
	keys := store.Config{Bucket: "bucket", AccessKey: "a", SecretKey: "the-secret-key"}
	for _, c := range []struct {
		change func(c *store.Config)
		want   string
	}{
		{func(c *store.Config) { c.Endpoint, c.TLS = "http://127.0.0.1:1", &tls.Config{} }, "has no TLS"},
		{func(c *store.Config) { c.Endpoint, c.TLS = "https://s3.example", &tls.Config{InsecureSkipVerify: true} }, "for loopback only"},
		{func(c *store.Config) { c.AccessKey, c.SecretKey = "", "" }, "Config.AWS"},
		{func(c *store.Config) { c.SecretKey = "" }, "only one of"},
	} {
		bad := keys
		c.change(&bad)
		if _, err := store.Open(t.Context(), bad); err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "the-secret-key") {
			t.Errorf("%v, want %q", err, c.want)
		}
	}
}

// TestAWSConfig: region and credentials that the caller read are used, and given keys win over them.
func TestAWSConfig(t *testing.T) {
	t.Parallel()
	c := config(t)
	right := credentials.NewStaticCredentialsProvider(c.AccessKey, c.SecretKey, "")
	wrong := credentials.NewStaticCredentialsProvider("nobody", "nothing", "")
	found := c
	found.AccessKey, found.SecretKey = "", ""
	found.AWS = &aws.Config{Region: "us-east-1", Credentials: right}
	if _, err := open(t, found).Put(t.Context(), "x", "", []byte("1")); err != nil {
		t.Error(err)
	}
	c.AWS = &aws.Config{Region: "us-east-1", Credentials: wrong}
	if _, err := open(t, c).Put(t.Context(), "x", "", []byte("1")); err != nil {
		t.Error(err)
	}
}
