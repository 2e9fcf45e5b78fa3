package cluster_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"flag"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"

	"github.com/opencharacter/opencharacter/cmd/internal/cluster"
)

// authority signs certificates and writes them as files.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t, dir: t.TempDir()}
	a.key = newKey(t)
	der, err := x509.CreateCertificate(rand.Reader, template("authority", true), template("authority", true), &a.key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	a.file = a.write("ca.pem", "CERTIFICATE", der)
	return a
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func template(name string, ca bool) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: ca, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
}

func (a *authority) write(name, kind string, der []byte) string {
	a.t.Helper()
	path := filepath.Join(a.dir, name)
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		a.t.Fatal(err)
	}
	return path
}

// issue makes a certificate and its key.
func (a *authority) issue(name string) (cert, key string) {
	a.t.Helper()
	k := newKey(a.t)
	der, err := x509.CreateCertificate(rand.Reader, template(name, false), a.cert, &k.PublicKey, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	pkcs, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		a.t.Fatal(err)
	}
	return a.write(name+".pem", "CERTIFICATE", der), a.write(name+".key", "PRIVATE KEY", pkcs)
}

// frontend is as much of Temporal as a client asks for when it connects.
type frontend struct {
	workflowservice.UnimplementedWorkflowServiceServer
	authorization chan string
}

func (f *frontend) GetSystemInfo(ctx context.Context, _ *workflowservice.GetSystemInfoRequest) (*workflowservice.GetSystemInfoResponse, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	f.authorization <- strings.Join(md.Get("authorization"), ",")
	return &workflowservice.GetSystemInfoResponse{Capabilities: &workflowservice.GetSystemInfoResponse_Capabilities{}}, nil
}

// serve starts it with TLS; needCert makes it mTLS.
func serve(t *testing.T, a *authority, name string, needCert bool) (string, *frontend) {
	t.Helper()
	certFile, keyFile := a.issue(name)
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		t.Fatal(err)
	}
	c := &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	if needCert {
		c.ClientAuth, c.ClientCAs = tls.RequireAndVerifyClientCert, x509.NewCertPool()
		c.ClientCAs.AddCert(a.cert)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &frontend{authorization: make(chan string, 100)}
	s := grpc.NewServer(grpc.Creds(credentials.NewTLS(c)))
	workflowservice.RegisterWorkflowServiceServer(s, f)
	go s.Serve(l) //nolint:errcheck // ends with Stop
	t.Cleanup(s.Stop)
	return l.Addr().String(), f
}

func noEnv(string) string { return "" }

func env(pairs ...string) func(string) string {
	return func(name string) string {
		for i := 0; i < len(pairs); i += 2 {
			if pairs[i] == name {
				return pairs[i+1]
			}
		}
		return ""
	}
}

// settings parses arguments as the commands do.
func settings(t *testing.T, env func(string) string, args ...string) cluster.Settings {
	t.Helper()
	fs := flag.NewFlagSet("", flag.ContinueOnError)
	cluster.Register(fs, env, map[string][]string{"temporal": {"TEMPORAL_ADDRESS"}})
	if err := fs.Parse(args); err != nil {
		t.Fatal(err)
	}
	return cluster.Read(func(name string) string { return fs.Lookup(name).Value.String() })
}

func dial(t *testing.T, s cluster.Settings, env func(string) string) error {
	t.Helper()
	o, err := s.ClientOptions(env, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	c, err := client.DialContext(ctx, o)
	if err == nil {
		c.Close()
	}
	return err
}

func TestTemporalTLS(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	address, f := serve(t, a, "temporal.example", false)
	// By flags and by the variables of Temporal's tools; with an API key and without.
	args := []string{"-temporal", address, "-temporal-tls-ca", a.file, "-temporal-tls-server-name", "temporal.example"}
	if err := dial(t, settings(t, noEnv, args...), noEnv); err != nil {
		t.Error(err)
	}
	if got := <-f.authorization; got != "" {
		t.Errorf("authorization %q without an API key", got)
	}
	e := env("TEMPORAL_ADDRESS", address, "TEMPORAL_TLS_SERVER_CA_CERT_PATH", a.file, "TEMPORAL_TLS_SERVER_NAME", "temporal.example", "TEMPORAL_API_KEY", "the-api-key")
	if err := dial(t, settings(t, e), e); err != nil {
		t.Error(err)
	}
	if got := <-f.authorization; got != "Bearer the-api-key" {
		t.Errorf("authorization %q", got)
	}
	// Another authority, another name: no connection.
	for _, bad := range [][]string{
		{"-temporal", address, "-temporal-tls-ca", newAuthority(t).file, "-temporal-tls-server-name", "temporal.example"},
		{"-temporal", address, "-temporal-tls-ca", a.file, "-temporal-tls-server-name", "other.example"},
		{"-temporal", address, "-temporal-tls", "true"},
	} {
		if err := dial(t, settings(t, noEnv, bad...), noEnv); err == nil {
			t.Errorf("%v connects", bad)
		}
	}
}

func TestTemporalMTLS(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	address, _ := serve(t, a, "temporal.example", true)
	cert, key := a.issue("client.example")
	base := []string{"-temporal", address, "-temporal-tls-ca", a.file, "-temporal-tls-server-name", "temporal.example"}
	if err := dial(t, settings(t, noEnv, append(base, "-temporal-tls-cert", cert, "-temporal-tls-key", key)...), noEnv); err != nil {
		t.Error(err)
	}
	if err := dial(t, settings(t, noEnv, base...), noEnv); err == nil {
		t.Error("connects without a certificate")
	}
	foreign, foreignKey := newAuthority(t).issue("client.example")
	if err := dial(t, settings(t, noEnv, append(base, "-temporal-tls-cert", foreign, "-temporal-tls-key", foreignKey)...), noEnv); err == nil {
		t.Error("connects with another authority's certificate")
	}
}

func TestClientOptionsRefuse(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	cert, key := a.issue("client.example")
	other, _ := a.issue("other.example")
	notPEM := filepath.Join(t.TempDir(), "not.pem")
	if err := os.WriteFile(notPEM, []byte("secret-in-a-file"), 0o600); err != nil {
		t.Fatal(err)
	}
	api := env("TEMPORAL_API_KEY", "the-api-key")
	for _, c := range []struct {
		env  func(string) string
		args []string
		want string
	}{
		{noEnv, []string{"-temporal-tls-cert", cert}, "--temporal-tls-cert and --temporal-tls-key belong together"},
		{noEnv, []string{"-temporal-tls-key", key}, "belong together"},
		{noEnv, []string{"-temporal-tls-ca", "/nowhere/ca.pem"}, "--temporal-tls-ca: open /nowhere/ca.pem"},
		{noEnv, []string{"-temporal-tls-ca", notPEM}, "has no PEM certificate"},
		{noEnv, []string{"-temporal-tls-cert", cert, "-temporal-tls-key", "/nowhere/key.pem"}, "--temporal-tls-key: open /nowhere/key.pem"},
		{noEnv, []string{"-temporal-tls-cert", other, "-temporal-tls-key", key}, "private key does not match"},
		{noEnv, []string{"-temporal-tls-cert", cert, "-temporal-tls-key", notPEM}, "--temporal-tls-key " + notPEM},
		{noEnv, []string{"-temporal-tls", "maybe"}, "want true or false"},
		{noEnv, []string{"-temporal-tls=false", "-temporal-tls-ca", a.file}, "contradicts"},
		{api, []string{"-temporal-tls=false", "-temporal", "temporal.example:7233"}, "in the clear"},
		{noEnv, []string{"-temporal-api-key-env", "sk-secret-in-a-flag"}, "never the key"},
		{noEnv, []string{"-temporal-api-key-env", "UNSET_VARIABLE"}, "UNSET_VARIABLE is not set"},
		{env("TEMPORAL_TLS_DISABLE_HOST_VERIFICATION", "true"), nil, "TEMPORAL_TLS_DISABLE_HOST_VERIFICATION is set"},
		{env("TEMPORAL_TLS_CLIENT_KEY_DATA", "secret"), nil, "TEMPORAL_TLS_CLIENT_KEY_DATA"},
	} {
		_, err := settings(t, c.env, c.args...).ClientOptions(c.env, io.Discard)
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "secret-in-a") || strings.Contains(err.Error(), "the-api-key") {
			t.Errorf("%v: %v, want %q", c.args, err, c.want)
		}
	}
	// An API key alone means TLS; on loopback TLS may be off.
	o, err := settings(t, api, "-temporal", "temporal.example:7233").ClientOptions(api, io.Discard)
	if err != nil || o.ConnectionOptions.TLS == nil || o.ConnectionOptions.TLSDisabled {
		t.Errorf("%+v %v", o.ConnectionOptions, err)
	}
	o, err = settings(t, api, "-temporal", "127.0.0.1:7233", "-temporal-tls=false").ClientOptions(api, io.Discard)
	if err != nil || o.ConnectionOptions.TLS != nil || !o.ConnectionOptions.TLSDisabled {
		t.Errorf("%+v %v", o.ConnectionOptions, err)
	}
	o, err = settings(t, noEnv, "-temporal", "temporal.example:7233").ClientOptions(noEnv, io.Discard)
	if err != nil || o.ConnectionOptions.TLS != nil || o.Credentials != nil {
		t.Errorf("%+v %v", o.ConnectionOptions, err)
	}
}

func TestOpenKeyFilesAreWarnedOf(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	cert, key := a.issue("client.example")
	s := settings(t, noEnv, "-temporal-tls-cert", cert, "-temporal-tls-key", key)
	var said bytes.Buffer
	if _, err := s.ClientOptions(noEnv, &said); err != nil || said.Len() > 0 {
		t.Errorf("%v %s", err, said.String())
	}
	if err := os.Chmod(key, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := s.ClientOptions(noEnv, &said); err != nil || !strings.Contains(said.String(), "chmod 600 "+key) {
		t.Errorf("%v %q", err, said.String())
	}
}

func TestStoreConfig(t *testing.T) {
	a := newAuthority(t)
	for _, name := range []string{"AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_CA_BUNDLE"} {
		t.Setenv(name, "")
	}
	t.Setenv("AWS_CONFIG_FILE", filepath.Join(t.TempDir(), "none"))
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", filepath.Join(t.TempDir(), "none"))
	t.Setenv("AWS_ACCESS_KEY_ID", "the-access-key")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "the-secret-key")
	c, err := settings(t, noEnv, "-s3-bucket", "b", "-s3-endpoint", "https://s3.example", "-s3-region", "eu-1", "-s3-prefix", "team/a", "-s3-tls-ca", a.file).StoreConfig(t.Context(), io.Discard)
	if err != nil || c.Bucket != "b" || c.Region != "eu-1" || c.Prefix != "team/a" || !c.PathStyle || c.TLS == nil || c.TLS.RootCAs == nil || c.TLS.InsecureSkipVerify {
		t.Fatalf("%+v %v", c, err)
	}
	keys, err := c.AWS.Credentials.Retrieve(t.Context())
	if err != nil || keys.AccessKeyID != "the-access-key" || keys.SecretAccessKey != "the-secret-key" {
		t.Errorf("the AWS environment is not read: %v", err)
	}
	if _, err := settings(t, noEnv, "-s3-tls-cert", "x.pem").StoreConfig(t.Context(), io.Discard); err == nil || !strings.Contains(err.Error(), "--s3-tls-cert and --s3-tls-key belong together") {
		t.Errorf("%v", err)
	}
}

func TestAllow(t *testing.T) {
	t.Parallel()
	dir, models := t.TempDir(), t.TempDir()
	file := filepath.Join(dir, "m.gguf")
	if err := os.WriteFile(file, []byte("GGUF"), 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := cluster.Allow(nil, nil, env("CHARACTER_ALLOW_PATHS", "/srv/none"+string(filepath.ListSeparator)+dir, "CHARACTER_ALLOW_URLS", "http://127.0.0.1:1/v1 https://x,KEY"), models, "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Model(file); err != nil {
		t.Error(err)
	}
	for _, e := range [][2]string{{"http://127.0.0.1:1/v1", ""}, {"https://x/v1", "KEY"}, {"https://api.deepseek.com", "DEEPSEEK_API_KEY"}} {
		if err := r.Endpoint(e[0], e[1]); err != nil {
			t.Error(err)
		}
	}
	// By default: no file but the models', no host but the presets', and no key but theirs.
	r, err = cluster.Allow(nil, nil, noEnv, models, "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Model(file); err == nil {
		t.Error("a file is allowed by default")
	}
	for _, e := range [][2]string{{"http://127.0.0.1:1/v1", ""}, {"https://x/v1", ""}, {"https://api.deepseek.com", "AWS_SECRET_ACCESS_KEY"}} {
		if err := r.Endpoint(e[0], e[1]); err == nil {
			t.Errorf("%v is allowed by default", e)
		}
	}
}
