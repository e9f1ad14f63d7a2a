// SPDX-License-Identifier: Apache-2.0

package openwhisk

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"disdel/internal/job"
	"disdel/internal/platform"
)

func TestParseHost(t *testing.T) {
	for text, want := range map[string]string{
		"openwhisk.example":            "https://openwhisk.example",
		"openwhisk.example:443":        "https://openwhisk.example:443",
		"http://172.17.0.1:3233":       "http://172.17.0.1:3233",
		"http://172.17.0.1:3233/":      "http://172.17.0.1:3233",
		"https://host.example/api/v1":  "https://host.example",
		"https://host.example/ow/api/": "https://host.example/ow",
		" https://[::1]:3233 ":         "https://[::1]:3233",
	} {
		if got, err := parseHost(text); err != nil || got.String() != want {
			t.Errorf("%q is %v, %v; want %s", text, got, err, want)
		}
	}
	for _, text := range []string{
		"", " ", "http://", "ftp://host", "https://user:sesame@host", "user:sesame@host", "https://host?sesame", "https://host#sesame",
		"https://host sesame", "http://:3233", "://sesame",
	} {
		if u, err := parseHost(text); !errors.Is(err, ErrConfig) || strings.Contains(err.Error(), "sesame") {
			t.Errorf("%q: %v, %v; want an error that repeats nothing", text, u, err)
		}
	}
}

func TestOpen_Refuses(t *testing.T) {
	good := Config{Host: "h", Key: testKey, Image: "i"}
	with := func(change func(*Config)) Config {
		c := good
		change(&c)
		return c
	}
	for name, c := range map[string]struct {
		cfg  Config
		says string
	}{
		"no host":        {with(func(c *Config) { c.Host = "" }), "--apihost"},
		"no key":         {with(func(c *Config) { c.Key = "" }), "--auth"},
		"half a key":     {with(func(c *Config) { c.Key = "sesame" }), "uuid:secret"},
		"key with lines": {with(func(c *Config) { c.Key = "a:sesame\r\nX: y" }), "uuid:secret"},
		"namespace":      {with(func(c *Config) { c.Namespace = "a/b/c" }), "namespace"},
		"both":           {with(func(c *Config) { c.Kind = "go:default" }), "both"},
		"certificate":    {with(func(c *Config) { c.Certificate = "/nowhere" }), "both"},
		"no certificate": {with(func(c *Config) { c.Certificate, c.CertificateKey = "/nowhere", "/nowhere" }), "/nowhere"},
		"pool":           {with(func(c *Config) { c.PoolMemory = -1 }), "negative"},
	} {
		if _, err := Open(c.cfg); !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "sesame") {
			t.Errorf("%s: %v; want one that says %q", name, err, c.says)
		}
	}
	c, err := Open(good)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{c.Address(), c.Name(), fmt.Sprint(c.base)} {
		if strings.Contains(text, testSecret) {
			t.Errorf("%s shows the key", text)
		}
	}
}

func TestPath(t *testing.T) {
	for namespace, want := range map[string]string{
		"": "/api/v1/namespaces/_/actions/a%20b/c@d", "_": "/api/v1/namespaces/_/actions/a%20b/c@d",
		"guest": "/api/v1/namespaces/guest/actions/a%20b/c@d", "/guest": "/api/v1/namespaces/guest/actions/a%20b/c@d",
		"/guest/": "/api/v1/namespaces/guest/actions/a%20b/c@d", "a b": "/api/v1/namespaces/a%20b/actions/a%20b/c@d",
	} {
		c, err := Open(Config{Host: "h", Key: testKey, Image: "i", Namespace: namespace})
		if err != nil {
			t.Fatal(err)
		}
		if got := c.path("actions", "a b", "c@d"); got != want {
			t.Errorf("namespace %q: %s, want %s", namespace, got, want)
		}
	}
}

func TestParseProperties(t *testing.T) {
	text := "# comment\nAPIHOST=http://172.17.0.1:3233 # this one\nAUTH=" + testKey + "\n\nNAMESPACE=guest\n APIVERSION = v1\n" +
		"CERT=/c.pem\nKEY=/k.pem\nAPIGW_ACCESS_TOKEN=a=b\nINSECURE_SSL=true\nno equals sign\nAUTH=two=signs\n"
	want := Properties{Host: "http://172.17.0.1:3233", Key: testKey, APIVersion: "v1", Certificate: "/c.pem", CertificateKey: "/k.pem"}
	if got, err := ParseProperties(strings.NewReader(text)); err != nil || got != want {
		t.Errorf("%+v, %v; want %+v", got, err, want)
	}
	if got, err := ParseProperties(strings.NewReader("")); err != nil || got != (Properties{}) {
		t.Errorf("empty: %+v, %v", got, err)
	}
	if _, err := ParseProperties(strings.NewReader("AUTH=" + strings.Repeat("x", 2*propertiesMax))); err == nil {
		t.Error("a line without an end is read")
	}
}

func FuzzParseProperties(f *testing.F) {
	f.Add("APIHOST=h\nAUTH=a:b\n")
	f.Add("=\n==\n#=\nKEY")
	f.Fuzz(func(t *testing.T, text string) {
		p, err := ParseProperties(strings.NewReader(text))
		if err == nil && strings.ContainsAny(p.Host+p.Key, "\n=") {
			t.Errorf("%q gives %+v", text, p)
		}
	})
}

func FuzzParseHost(f *testing.F) {
	f.Add("http://h:1/api")
	f.Add("u:p@h")
	f.Fuzz(func(t *testing.T, text string) {
		u, err := parseHost(text)
		if err == nil && (u.Host == "" || u.User != nil || u.RawQuery != "" || u.Scheme != "http" && u.Scheme != "https") {
			t.Errorf("%q gives %#v", text, u)
		}
	})
}

// TestTLS: a certificate that cannot be verified is refused unless the user says
// otherwise, and the errors say what can be done.
func TestTLS(t *testing.T) {
	w := newWhisk(t)
	secure, open := server(t, w, true), server(t, w, false)
	ask := func(host string, change func(*Config)) error {
		t.Helper()
		cfg := Config{Host: host, Key: testKey, Image: "i"}
		change(&cfg)
		c, err := Open(cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_, err = c.Limits(t.Context())
		return err
	}
	same := func(*Config) {}
	for _, c := range []struct {
		host   string
		change func(*Config)
		says   string
	}{
		{secure.URL, same, "--insecure"},
		{strings.TrimPrefix(open.URL, "http://"), same, "http://"},
		{strings.Replace(secure.URL, "https://", "http://", 1), same, "HTTP request to an HTTPS server"},
		{"http://127.0.0.1:1", same, "refused; OpenWhisk does not run there: check --apihost"},
		{"nowhere.example", func(c *Config) {
			c.Transport = &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
				return nil, &net.DNSError{Err: "no such host", Name: "nowhere.example", IsNotFound: true}
			}}
		}, "check --apihost"},
	} {
		err := ask(c.host, c.change)
		if err == nil || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), testSecret) {
			t.Errorf("%s: %v; want one that says %q", c.host, err, c.says)
		}
	}
	if len(w.requests) != 0 {
		t.Errorf("the server got %v", w.requests)
	}
	for _, err := range []error{ask(secure.URL, func(c *Config) { c.Insecure = true }), ask(open.URL, same)} {
		if err != nil {
			t.Error(err)
		}
	}
	if err := ask(open.URL, func(c *Config) { c.Key = "a:" + strings.Repeat("b", 64) }); !errors.Is(err, platform.ErrUnauthorised) {
		t.Errorf("another key: %v", err)
	}
}

// TestRedirect: the key goes to no other host.
func TestRedirect(t *testing.T) {
	elsewhere := newWhisk(t)
	other := server(t, elsewhere, false)
	w := newWhisk(t)
	w.fault = func(rw http.ResponseWriter, r *http.Request, _ []byte) bool {
		http.Redirect(rw, r, other.URL+r.URL.Path, http.StatusFound)
		return true
	}
	c, err := Open(Config{Host: server(t, w, false).URL, Key: testKey, Image: "i"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Limits(t.Context()); !errors.Is(err, platform.ErrRefused) || !strings.Contains(err.Error(), other.URL) {
		t.Errorf("sent on: %v", err)
	}
	if len(elsewhere.requests) != 0 {
		t.Errorf("the other host got %v", elsewhere.requests)
	}
}

// TestClientCertificate: both files or none, and a damaged one is named.
func TestClientCertificate(t *testing.T) {
	s := server(t, newWhisk(t), true)
	path := filepath.Join(t.TempDir(), "c.pem")
	raw := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Open(Config{Host: s.URL, Key: testKey, Image: "i", Certificate: path, CertificateKey: path})
	if !errors.Is(err, ErrConfig) {
		t.Errorf("a certificate without a key: %v", err)
	}
}

func TestConfig_Defaults(t *testing.T) {
	c := Config{PoolMemory: 4 * job.GB}.withDefaults()
	if c.Processors != 16 || c.Kind != "" || c.Namespace != "_" {
		t.Errorf("defaults are %+v", c)
	}
	if c := (Config{Image: "i"}).withDefaults(); c.Kind != "" || c.PoolMemory != job.GB || c.Processors != 4 {
		t.Errorf("defaults are %+v", c)
	}
}
