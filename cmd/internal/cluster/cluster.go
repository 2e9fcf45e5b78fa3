// Package cluster holds the flags and environment variables by which both commands reach a Temporal cluster and an S3
// of the user's own: addresses, TLS, credentials, the key file of the payload codec.
//
// Secrets come by the environment or by files, never by a flag's value, because everybody on a machine can read the
// arguments of its processes. Start reading at Register and Read.
package cluster

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"go.temporal.io/sdk/client"

	"github.com/opencharacter/opencharacter/codec"
	"github.com/opencharacter/opencharacter/store"
)

// Settings are the values of the flags.
type Settings struct {
	Temporal, Namespace, APIKeyEnv           string
	TLS                                      string // true, false, or empty: when one of the next four or an API key is given
	TLSCA, TLSCert, TLSKey, TLSServerName    string
	S3Endpoint, S3Bucket, S3Region, S3Prefix string
	S3TLSCA, S3TLSCert, S3TLSKey             string
	CodecKeyFile                             string
}

// flag is one of them. The first of env that is set is its default. The names of TLS variables are those of Temporal's
// own tools.
type flag struct {
	name  string
	field func(*Settings) *string
	env   []string
	other string // default without environment
	usage string
}

var flags = []flag{
	{"temporal", func(s *Settings) *string { return &s.Temporal }, []string{"CHARACTER_TEMPORAL"}, "", "host:port of your Temporal cluster instead of the local stack"},
	{"namespace", func(s *Settings) *string { return &s.Namespace }, []string{"CHARACTER_NAMESPACE"}, "default", "Temporal namespace, with --temporal"},
	{"temporal-api-key-env", func(s *Settings) *string { return &s.APIKeyEnv }, nil, "TEMPORAL_API_KEY", "name of the environment variable that holds Temporal's API key, if it wants one; never the key itself"},
	{"temporal-tls", func(s *Settings) *string { return &s.TLS }, []string{"TEMPORAL_TLS"}, "", "true or false; empty: TLS when an API key or one of the next four is given"},
	{"temporal-tls-ca", func(s *Settings) *string { return &s.TLSCA }, []string{"TEMPORAL_TLS_SERVER_CA_CERT_PATH"}, "", "PEM file of the authority that signed Temporal's certificate; empty: the system's"},
	{"temporal-tls-cert", func(s *Settings) *string { return &s.TLSCert }, []string{"TEMPORAL_TLS_CLIENT_CERT_PATH"}, "", "PEM file of this client's certificate (mTLS)"},
	{"temporal-tls-key", func(s *Settings) *string { return &s.TLSKey }, []string{"TEMPORAL_TLS_CLIENT_KEY_PATH"}, "", "PEM file of its private key"},
	{"temporal-tls-server-name", func(s *Settings) *string { return &s.TLSServerName }, []string{"TEMPORAL_TLS_SERVER_NAME"}, "", "name that Temporal's certificate must have, where it is not that of the address"},
	{"s3-endpoint", func(s *Settings) *string { return &s.S3Endpoint }, []string{"CHARACTER_S3_ENDPOINT"}, "", "URL of your S3, with --temporal; empty: AWS; keys come from the AWS environment and profiles"},
	{"s3-bucket", func(s *Settings) *string { return &s.S3Bucket }, []string{"CHARACTER_S3_BUCKET"}, "", "bucket, with --temporal"},
	{"s3-region", func(s *Settings) *string { return &s.S3Region }, []string{"CHARACTER_S3_REGION"}, "", "region of the bucket; empty: what the AWS environment and profile say, else us-east-1"},
	{"s3-prefix", func(s *Settings) *string { return &s.S3Prefix }, []string{"CHARACTER_S3_PREFIX"}, "", "put before every key, so that a bucket can be shared"},
	{"s3-tls-ca", func(s *Settings) *string { return &s.S3TLSCA }, []string{"CHARACTER_S3_TLS_CA"}, "", "PEM file of the authority that signed the certificate of S3; empty: the system's"},
	{"s3-tls-cert", func(s *Settings) *string { return &s.S3TLSCert }, []string{"CHARACTER_S3_TLS_CERT"}, "", "PEM file of this client's certificate for S3 (mTLS)"},
	{"s3-tls-key", func(s *Settings) *string { return &s.S3TLSKey }, []string{"CHARACTER_S3_TLS_KEY"}, "", "PEM file of its private key"},
	{CodecKeyFile, func(s *Settings) *string { return &s.CodecKeyFile }, []string{"CHARACTER_CODEC_KEY_FILE"}, "", "encrypt what Temporal keeps with the first key of this file"},
}

// CodecKeyFile is the name of the one flag that is for the local stack too.
const CodecKeyFile = "codec-key-file"

// Set is what both flag packages have.
type Set interface {
	StringVar(p *string, name, value, usage string)
}

// Register adds the flags. env reads the environment; more names further variables for a flag.
func Register(fs Set, env func(string) string, more map[string][]string) {
	for _, f := range flags {
		names := append(append([]string(nil), f.env...), more[f.name]...)
		value, usage := f.other, f.usage
		for i, n := range names {
			if v := env(n); v != "" && value == f.other {
				value = v
			}
			usage += map[bool]string{true: " (", false: ", "}[i == 0] + n
		}
		if len(names) > 0 {
			usage += ")"
		}
		fs.StringVar(new(string), f.name, value, usage)
	}
}

// ClusterOnly lists the flags that mean nothing without --temporal.
func ClusterOnly() []string {
	var out []string
	for _, f := range flags {
		if f.name != "temporal" && f.name != CodecKeyFile {
			out = append(out, f.name)
		}
	}
	return out
}

// Read collects the flags' values.
func Read(value func(name string) string) Settings {
	var s Settings
	for _, f := range flags {
		*f.field(&s) = value(f.name)
	}
	return s
}

// ClientOptions says how to reach the cluster. Warnings go to warn.
func (s Settings) ClientOptions(env func(string) string, warn io.Writer) (client.Options, error) {
	var o client.Options
	for _, name := range []string{"TEMPORAL_TLS_CLIENT_CERT_DATA", "TEMPORAL_TLS_CLIENT_KEY_DATA", "TEMPORAL_TLS_SERVER_CA_CERT_DATA"} {
		if env(name) != "" {
			return o, fmt.Errorf("%s is set, and this program reads certificates and keys from files only: write it to a file and name that", name)
		}
	}
	if on, _ := strconv.ParseBool(env("TEMPORAL_TLS_DISABLE_HOST_VERIFICATION")); on {
		return o, errors.New("TEMPORAL_TLS_DISABLE_HOST_VERIFICATION is set, and this program does not talk to servers that it cannot check: name their authority with --temporal-tls-ca and, where the name differs, --temporal-tls-server-name")
	}
	o.HostPort, o.Namespace = s.Temporal, s.Namespace
	key := ""
	if s.APIKeyEnv != "" {
		if !variable.MatchString(s.APIKeyEnv) {
			return o, errors.New("--temporal-api-key-env is not the name of an environment variable; give the variable's name, never the key")
		}
		key = env(s.APIKeyEnv)
	}
	if key == "" && s.APIKeyEnv != "TEMPORAL_API_KEY" && s.APIKeyEnv != "" {
		return o, fmt.Errorf("--temporal-api-key-env: environment variable %s is not set", s.APIKeyEnv)
	}
	files := tlsFiles{"--temporal-tls-ca", "--temporal-tls-cert", "--temporal-tls-key", s.TLSCA, s.TLSCert, s.TLSKey, s.TLSServerName}
	on := key != "" || files.any()
	if s.TLS != "" {
		v, err := strconv.ParseBool(s.TLS)
		if err != nil {
			return o, fmt.Errorf("--temporal-tls %q: want true or false", s.TLS)
		}
		if on = v; !v && files.any() {
			return o, errors.New("--temporal-tls=false (TEMPORAL_TLS) contradicts the TLS files or server name that are given: leave one of them out")
		}
	}
	if key != "" && !on && !loopback(s.Temporal) {
		return o, fmt.Errorf("--temporal-tls=false would send the API key to %s in the clear: leave it out", s.Temporal)
	}
	if on {
		c, err := files.config(warn)
		if err != nil {
			return o, err
		}
		o.ConnectionOptions.TLS = c
	} else {
		o.ConnectionOptions.TLSDisabled = true
	}
	if key != "" {
		o.Credentials = client.NewAPIKeyStaticCredentials(key)
	}
	return o, nil
}

// StoreConfig says how to reach the bucket; it reads the AWS environment and profiles.
func (s Settings) StoreConfig(ctx context.Context, warn io.Writer) (store.Config, error) {
	c := store.Config{Endpoint: s.S3Endpoint, Bucket: s.S3Bucket, Region: s.S3Region, Prefix: s.S3Prefix, PathStyle: s.S3Endpoint != ""}
	files := tlsFiles{"--s3-tls-ca", "--s3-tls-cert", "--s3-tls-key", s.S3TLSCA, s.S3TLSCert, s.S3TLSKey, ""}
	if files.any() {
		var err error
		var t *tls.Config
		if t, err = files.config(warn); err != nil {
			return c, err
		}
		c.TLS = t
	}
	// Only the SDK's own client type can take AWS_CA_BUNDLE; with another one loading the configuration fails.
	cfg, err := config.LoadDefaultConfig(ctx, config.WithHTTPClient(awshttp.NewBuildableClient()))
	if err != nil {
		return c, fmt.Errorf("load the AWS configuration: %w; check the AWS_* variables and ~/.aws", err)
	}
	c.AWS = &cfg
	return c, nil
}

// Codec puts the codec of the key file, if one is named, into the client's options. Without one the client still says
// clearly what it cannot read.
func (s Settings) Codec(o *client.Options, warn io.Writer) (*codec.Keys, error) {
	var k *codec.Keys
	if s.CodecKeyFile != "" {
		var err error
		if k, err = ReadKeys(s.CodecKeyFile, warn); err != nil {
			return nil, err
		}
	}
	o.DataConverter, o.FailureConverter = k.DataConverter(), k.FailureConverter()
	return k, nil
}

// ReadKeys reads a codec's key file, and warns when others can read it too.
func ReadKeys(path string, warn io.Writer) (*codec.Keys, error) {
	k, err := codec.Read(path)
	if err != nil {
		return nil, fmt.Errorf("--%s: %w", CodecKeyFile, err)
	}
	warnOpen(warn, "--"+CodecKeyFile, path)
	return k, nil
}

func loopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		host = address
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
