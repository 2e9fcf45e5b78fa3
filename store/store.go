// Package store keeps objects, in S3 as a rule: content-named objects that are written once, small keys that are written once,
// and fenced streams of checkpoints, where an attempt that was given up can not overwrite its successor.
//
// It knows no data set, no model and no workflow, and reads no environment: keys come with Config. Every write uses a conditional request and every lost reply is resolved by
// reading back, so a bucket must honour If-None-Match and If-Match: Probe checks it. Start reading at Open; object.go
// has single objects, stream.go the fencing. Where the bytes lie is a Backend: S3, memory, or one of a program's own.
package store

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

// Errors to test for with errors.Is.
var (
	// ErrNotFound: there is no object with this key.
	ErrNotFound = errors.New("not found")
	// ErrConflict: the key exists with other bytes, and keys are written once.
	ErrConflict = errors.New("exists with other bytes")
	// ErrFenced: a newer attempt has claimed the stream; this one must stop its work.
	ErrFenced = errors.New("fenced: a newer attempt owns this stream")
	// ErrCorrupt: the bytes of an object are not those its Ref promises.
	ErrCorrupt = errors.New("corrupt object")
)

// Config names a bucket and how to reach it.
type Config struct {
	Endpoint  string // "" = AWS, or what Config.AWS says; else http://host:port or https://host
	Region    string // "" = that of Config.AWS, else us-east-1
	Bucket    string // required
	Prefix    string // put before every key; keys of the API and of a Ref do not contain it
	AccessKey string `json:"-"` // "" = the credentials of Config.AWS
	SecretKey string `json:"-"`
	PathStyle bool   // bucket in the path, not in the host name; always so when Endpoint is set, unless VirtualHost

	VirtualHost bool // bucket in the host name even with an Endpoint

	IdleTimeout time.Duration // a request without any progress for so long is given up and tried again; 0 = 30 s
	CallTimeout time.Duration // all attempts of one call together, plus one second for each MiB of data; 0 = 2 min
	MaxAttempts int           // 0 = 8

	// AWS is what the AWS environment and profiles say, read by the caller (config.LoadDefaultConfig); nil = nothing but
	// the two keys above, which must then be set.
	AWS *aws.Config `json:"-"`
	// TLS adds to an https endpoint: authorities to trust, a client certificate. nil = the system's authorities. Its
	// InsecureSkipVerify is refused for an endpoint that is not on loopback.
	TLS *tls.Config `json:"-"`

	// Observe is told of every request when it has ended, also of those that are tried again; nil tells nobody. It must be quick, and
	// safe for concurrent use.
	Observe func(Request) `json:"-"`

	Transport http.RoundTripper `json:"-"` // nil = the SDK's own; for proxies and tests; it has TLS settings of its own
}

// Request is one request to the bucket and what came of it.
type Request struct {
	Operation string // put, get, list, ...: one of few words
	Outcome   string // ok, not_found, precondition (a conditional request found another state), throttled, error
	Took      time.Duration
}

// bucket is a bucket (and prefix) on S3.
type bucket struct {
	cfg    Config
	client *s3.Client
}

// S3 connects a backend to a bucket: see [Open].
func S3(ctx context.Context, c Config) (Backend, error) {
	c.IdleTimeout = cmp.Or(c.IdleTimeout, 30*time.Second)
	c.CallTimeout = cmp.Or(c.CallTimeout, 2*time.Minute)
	c.MaxAttempts = cmp.Or(c.MaxAttempts, 8)
	c.Prefix = strings.Trim(c.Prefix, "/")
	if c.Bucket == "" {
		return nil, errors.New("store: no bucket named; set the bucket")
	}
	if c.Prefix != "" {
		if err := checkKey(c.Prefix); err != nil {
			return nil, fmt.Errorf("store: prefix: %w", err)
		}
	}
	if (c.AccessKey == "") != (c.SecretKey == "") {
		return nil, errors.New("store: only one of access key and secret key is set; set both, or none to use the AWS environment and profile")
	}
	loopback, err := checkEndpoint(c.Endpoint)
	if err != nil {
		return nil, err
	}
	if err := checkTLS(c, loopback); err != nil {
		return nil, err
	}
	cfg, err := awsConfig(c)
	if err != nil {
		return nil, err
	}
	s := &bucket{cfg: c}
	s.client = s3.NewFromConfig(cfg, func(o *s3.Options) {
		if c.Endpoint != "" {
			o.BaseEndpoint = aws.String(strings.TrimRight(c.Endpoint, "/"))
		}
		o.UsePathStyle = c.PathStyle || (c.Endpoint != "" && !c.VirtualHost)
		o.DisableLogOutputChecksumValidationSkipped = true
		o.Retryer = aws.NopRetryer{} // call.go retries, with its own rules and limits
		if c.Transport != nil {
			o.HTTPClient = &http.Client{Transport: c.Transport}
		}
	})
	s.cfg.Region = s.client.Options().Region
	return s, s.ensureBucket(ctx)
}

func checkEndpoint(endpoint string) (loopback bool, err error) {
	if endpoint == "" {
		return false, nil
	}
	u, err := url.Parse(endpoint)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return false, fmt.Errorf("store: endpoint %q is not a URL; write http://HOST:PORT or https://HOST", redact(endpoint))
	}
	if u.User != nil {
		return false, errors.New("store: the endpoint URL contains a user or password; give them as access key and secret key")
	}
	if strings.Trim(u.Path, "/") != "" || u.RawQuery != "" {
		return false, fmt.Errorf("store: endpoint %q has a path or a query; name the bucket and the prefix apart", endpoint)
	}
	ip := net.ParseIP(u.Hostname())
	return u.Hostname() == "localhost" || (ip != nil && ip.IsLoopback()), nil
}

// redact drops what may be a password from a text that is not a proper URL.
func redact(endpoint string) string {
	if i := strings.LastIndex(endpoint, "@"); i >= 0 {
		return "..." + endpoint[i:]
	}
	return endpoint
}

func checkTLS(c Config, loopback bool) error {
	switch {
	case c.TLS == nil:
	case strings.HasPrefix(c.Endpoint, "http://"):
		return fmt.Errorf("store: TLS files are given, but endpoint %s has no TLS; write https://", c.Endpoint)
	case c.Transport != nil:
		return errors.New("store: Config.TLS and Config.Transport exclude each other; give the transport its own TLS settings")
	case c.TLS.InsecureSkipVerify && !loopback:
		return errors.New("store: TLS without checking the server's certificate is for loopback only; name the server's authority instead (a CA file)")
	}
	return nil
}

// awsConfig joins what the caller read of the AWS environment, if anything, with the keys and TLS of c.
func awsConfig(c Config) (aws.Config, error) {
	var cfg aws.Config
	switch {
	case c.AWS != nil:
		cfg = c.AWS.Copy()
	case c.AccessKey == "":
		return cfg, errors.New("store: no access key and no secret key, and no AWS configuration to find them in; give the keys, or Config.AWS")
	}
	cfg.Region = cmp.Or(c.Region, cfg.Region, "us-east-1")
	if c.AccessKey != "" {
		cfg.Credentials = credentials.NewStaticCredentialsProvider(c.AccessKey, c.SecretKey, "")
	}
	client, ok := cfg.HTTPClient.(*awshttp.BuildableClient)
	if cfg.HTTPClient == nil {
		client, ok = awshttp.NewBuildableClient(), true
		cfg.HTTPClient = client
	}
	if c.TLS == nil {
		return cfg, nil
	}
	if !ok {
		return cfg, fmt.Errorf("store: Config.TLS needs the AWS SDK's own HTTP client, Config.AWS has a %T; give that client its own TLS settings", cfg.HTTPClient)
	}
	cfg.HTTPClient = client.WithTransportOptions(func(t *http.Transport) {
		settings := c.TLS.Clone()
		if settings.RootCAs == nil && t.TLSClientConfig != nil {
			settings.RootCAs = t.TLSClientConfig.RootCAs // AWS_CA_BUNDLE
		}
		t.TLSClientConfig = settings
	})
	return cfg, nil
}

// ensureBucket makes the bucket if it is missing. Without the right to look or to create it is left to the first real request
// to say what is wrong.
func (s *bucket) ensureBucket(ctx context.Context) error {
	err := s.call(ctx, "look for the bucket", "", 0, func(ctx context.Context) error {
		_, err := s.client.HeadBucket(ctx, &s3.HeadBucketInput{Bucket: &s.cfg.Bucket})
		return err
	})
	switch {
	case err == nil || httpStatus(err) == http.StatusForbidden:
		return nil
	case httpStatus(err) != http.StatusNotFound:
		return err
	}
	in := &s3.CreateBucketInput{Bucket: &s.cfg.Bucket}
	if r := s.cfg.Region; r != "us-east-1" && r != "auto" {
		in.CreateBucketConfiguration = &types.CreateBucketConfiguration{LocationConstraint: types.BucketLocationConstraint(r)}
	}
	err = s.call(ctx, "create the bucket", "", 0, func(ctx context.Context) error {
		_, err := s.client.CreateBucket(ctx, in)
		return err
	})
	if err == nil || errorCode(err) == "BucketAlreadyOwnedByYou" {
		return nil
	}
	return err
}

// Ping asks once, without trying again, whether the bucket answers: nil also where the keys may not look at it.
func (s *bucket) Ping(ctx context.Context) error {
	began := time.Now()
	_, err := s.client.HeadBucket(ctx, &s3.HeadBucketInput{Bucket: &s.cfg.Bucket})
	s.observe("look for the bucket", time.Since(began), err)
	if err != nil && httpStatus(err) != http.StatusForbidden {
		return fmt.Errorf("store: look for the bucket (%s): %w%s", s.Where(), err, hint(err))
	}
	return nil
}

func (s *bucket) Where() string {
	where := "bucket " + s.cfg.Bucket
	if s.cfg.Prefix != "" {
		where += "/" + s.cfg.Prefix
	}
	if s.cfg.Endpoint != "" {
		return where + " at " + s.cfg.Endpoint
	}
	return where + " in " + s.cfg.Region
}

// full is the key as the bucket knows it.
func (s *bucket) full(key string) string {
	if s.cfg.Prefix == "" {
		return key
	}
	return s.cfg.Prefix + "/" + key
}
