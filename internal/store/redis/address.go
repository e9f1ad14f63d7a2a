// SPDX-License-Identifier: Apache-2.0

package redis

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"disdel/internal/store"
)

const (
	defaultPort = "6379"
	defaultName = "main"
	maxName     = 64
	maxDB       = 1 << 16
)

const wanted = "want redis[s]://[user:password@]host[:port][/db][?name=NAME][&ca=/path/to/ca.pem]"

// Address says where a store is and who opens it. Its String leaves the
// credential out, so that an address may be printed.
type Address struct {
	tls            bool
	host, port     string
	user, password string
	db             int
	name           string
	ca             string // PEM file with the authorities to trust instead of the system's
}

// ParseAddress reads the URL of a store:
//
//	redis://[user:password@]host[:port][/db][?name=NAME]
//	rediss://...[?ca=/path/to/ca.pem]
//
// Its errors never repeat any part in which a password could be.
func ParseAddress(raw string) (Address, error) {
	u, err := url.Parse(raw)
	if err != nil {
		// The parser's own error may repeat the password.
		return Address{}, errors.New("store URL cannot be read: " + wanted + "; in user and password write / ? # @ : % as %2F %3F %23 %40 %3A %25")
	}
	a := Address{
		tls: u.Scheme == store.SchemeRedisTLS, host: u.Hostname(), port: u.Port(), name: defaultName, user: u.User.Username(),
	}
	var hasPassword bool
	a.password, hasPassword = u.User.Password()
	switch {
	case !a.tls && u.Scheme != store.SchemeRedis:
		return Address{}, errors.New("store URL has another scheme: " + wanted)
	case u.User != nil && (!hasPassword || a.password == ""):
		return Address{}, errors.New("store URL has a user or a password alone: write user:password@ or, for the default user, :password@")
	case a.host == "", strings.ContainsRune(a.host, ':') && !strings.HasPrefix(u.Host, "["):
		return Address{}, errors.New("store URL names no host: " + wanted)
	case u.Fragment != "" || u.Opaque != "":
		return Address{}, errors.New("store URL has a part behind #: " + wanted)
	}
	if a.port == "" {
		a.port = defaultPort
	}
	if db := strings.TrimPrefix(u.Path, "/"); db != "" {
		a.db, err = strconv.Atoi(db)
		if err != nil || a.db < 0 || a.db > maxDB {
			return Address{}, errors.New("store URL: the path is not the number of a database: " + wanted)
		}
	}
	if err := a.parseQuery(u.RawQuery); err != nil {
		return Address{}, err
	}
	return a, nil
}

func (a *Address) parseQuery(raw string) error {
	values, err := url.ParseQuery(raw)
	if err != nil {
		return errors.New("store URL: what follows ? cannot be read: " + wanted)
	}
	for option, value := range values {
		switch {
		case len(value) > 1:
			return fmt.Errorf("store URL: option %q is given twice", option)
		case option == "name" && validName(value[0]):
			a.name = value[0]
		case option == "name":
			return fmt.Errorf("store URL: name %q: want 1 to %d characters a-z 0-9 . _ -", value[0], maxName)
		case option == "ca" && !a.tls:
			return errors.New("store URL: option ca needs TLS: write rediss://")
		case option == "ca" && !filepath.IsAbs(value[0]):
			return fmt.Errorf("store URL: ca %q: want the absolute path of a PEM file", value[0])
		case option == "ca":
			a.ca = value[0]
		default:
			return fmt.Errorf("store URL: option %q is unknown: %s", option, wanted)
		}
	}
	return nil
}

func validName(name string) bool {
	return len(name) <= maxName && !strings.Contains(name, "/") && store.ValidateKey(name) == nil
}

// String returns the URL without credentials.
func (a Address) String() string { return a.url(nil) }

// GoString is String: %#v must not print a password either.
func (a Address) GoString() string { return a.String() }

// WithCredential returns the URL with the credential: a secret, for the init
// parameters of workers only.
func (a Address) WithCredential() string {
	if a.password == "" {
		return a.url(nil)
	}
	return a.url(url.UserPassword(a.user, a.password))
}

func (a Address) url(user *url.Userinfo) string {
	u := url.URL{Scheme: store.SchemeRedis, User: user, Host: a.server()}
	if a.tls {
		u.Scheme = store.SchemeRedisTLS
	}
	if a.db != 0 {
		u.Path = "/" + strconv.Itoa(a.db)
	}
	query := url.Values{}
	if a.name != defaultName {
		query.Set("name", a.name)
	}
	if a.ca != "" {
		query.Set("ca", a.ca)
	}
	u.RawQuery = query.Encode()
	return u.String()
}

// Borrow returns a with the credential of other if it has none itself.
func (a Address) Borrow(other Address) Address {
	if a.password == "" {
		a.user, a.password = other.user, other.password
	}
	return a
}

func (a Address) server() string { return net.JoinHostPort(a.host, a.port) }

// who names the user for errors.
func (a Address) who() string {
	switch {
	case a.password == "":
		return "without a credential"
	case a.user == "":
		return "as the default user"
	default:
		return "as user " + strconv.Quote(a.user)
	}
}

// tlsConfig returns nil where the address wants no TLS.
func (a Address) tlsConfig() (*tls.Config, error) {
	if !a.tls {
		return nil, nil
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: a.host}
	if a.ca != "" {
		pem, err := os.ReadFile(a.ca)
		if err != nil {
			return nil, fmt.Errorf("the store's ca: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("the store's ca: %s holds no certificate in PEM form", a.ca)
		}
	}
	return config, nil
}
