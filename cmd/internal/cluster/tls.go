package cluster

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"os"
	"regexp"
	"runtime"
)

var variable = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,127}$`)

// tlsFiles are the PEM files of one connection, with the flags that named them.
type tlsFiles struct {
	caFlag, certFlag, keyFlag string
	ca, cert, key, serverName string
}

func (f tlsFiles) any() bool { return f.ca != "" || f.cert != "" || f.key != "" || f.serverName != "" }

// config reads the files. Errors name the flag and the file, never what is in it.
func (f tlsFiles) config(warn io.Writer) (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: f.serverName}
	if f.ca != "" {
		b, err := os.ReadFile(f.ca)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.caFlag, err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(b) {
			return nil, fmt.Errorf("%s: %s has no PEM certificate; name the file that begins with -----BEGIN CERTIFICATE-----", f.caFlag, f.ca)
		}
	}
	if (f.cert == "") != (f.key == "") {
		return nil, fmt.Errorf("%s and %s belong together: name both files, or none", f.certFlag, f.keyFlag)
	}
	if f.cert == "" {
		return c, nil
	}
	cert, err := os.ReadFile(f.cert)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.certFlag, err)
	}
	key, err := os.ReadFile(f.key)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.keyFlag, err)
	}
	warnOpen(warn, f.keyFlag, f.key)
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("%s %s and %s %s: %w", f.certFlag, f.cert, f.keyFlag, f.key, err)
	}
	c.Certificates = []tls.Certificate{pair}
	return c, nil
}

// warnOpen warns of a key that other users of the machine can read. It is no error: a container's mounted secrets often
// have such modes, and nobody else lives there.
func warnOpen(warn io.Writer, flag, path string) {
	if runtime.GOOS == "windows" {
		return
	}
	if st, err := os.Stat(path); err == nil && st.Mode().Perm()&0o077 != 0 {
		fmt.Fprintf(warn, "warning: %s: %s can be read by others than its owner (mode %04o): chmod 600 %s\n", flag, path, st.Mode().Perm(), path)
	}
}
