// SPDX-License-Identifier: Apache-2.0

package openwhisk

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"disdel/internal/job"
	"disdel/internal/platform"
)

const (
	// answerMax bounds an answer about entities and activation ids, recordMax a
	// record: a result of 1 MB, and logs, which a standalone server does not bound.
	answerMax = 2 << 20
	recordMax = 16 << 20
	headerMax = 64 << 10
	// uploadExtra is how much longer a request with code may take.
	uploadExtra = time.Minute
	// quoteMax bounds what a message shows of a text from outside.
	quoteMax  = 400
	userAgent = "disdel"
)

func (c Config) transport() (http.RoundTripper, error) {
	if c.Transport != nil {
		return c.Transport, nil
	}
	settings := &tls.Config{
		MinVersion:         tls.VersionTLS12,
		InsecureSkipVerify: c.Insecure, //nolint:gosec // The user asks for it by a flag of its own.
	}
	if (c.Certificate == "") != (c.CertificateKey == "") {
		return nil, fmt.Errorf("%w: a client certificate needs both of CERT and KEY", ErrConfig)
	}
	if c.Certificate != "" {
		pair, err := tls.LoadX509KeyPair(c.Certificate, c.CertificateKey)
		if err != nil {
			return nil, fmt.Errorf("%w: client certificate: %w", ErrConfig, err)
		}
		settings.Certificates = []tls.Certificate{pair}
	}
	return &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            (&net.Dialer{Timeout: c.RequestTimeout}).DialContext,
		TLSClientConfig:        settings,
		ForceAttemptHTTP2:      true,
		TLSHandshakeTimeout:    c.RequestTimeout,
		ExpectContinueTimeout:  time.Second,
		MaxConnsPerHost:        connectionsMax,
		MaxIdleConnsPerHost:    connectionsMax,
		IdleConnTimeout:        time.Minute,
		MaxResponseHeaderBytes: headerMax,
	}, nil
}

// connectionsMax bounds the connections to the deployment.
const connectionsMax = 8

// answer is a whole answer to a request.
type answer struct {
	status int
	header http.Header
	body   []byte
}

var errTooLarge = errors.New("the answer is too large")

type request struct {
	method, path string
	query        url.Values
	body         any // encoded as JSON; nil for none
	timeout      time.Duration
	most         int64 // bytes of the answer's body
}

// do sends a request once: net/http repeats a POST or PUT only where it could not
// write any of it. An error means that it is unknown what became of it,
// and is of the contract; a status of any kind is no error.
func (c *Client) do(ctx context.Context, r request) (_ answer, err error) {
	if err := ctx.Err(); err != nil {
		return answer{}, fmt.Errorf("openwhisk: %s: %w", r, err)
	}
	setDefault(&r.timeout, c.cfg.RequestTimeout)
	setDefault(&r.most, answerMax)
	bounded, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	defer func() {
		switch {
		case err == nil:
		case ctx.Err() != nil:
			err = fmt.Errorf("openwhisk: %s: %w", r, ctx.Err())
		case bounded.Err() != nil:
			err = fmt.Errorf("%w: %s of %s: no whole answer within %v", platform.ErrUnavailable, r, c.base, r.timeout)
		case errors.Is(err, errTooLarge):
			err = fmt.Errorf("%w: %s of %s: %w", platform.ErrUnavailable, r, c.base, err)
		default:
			err = fmt.Errorf("%w: %s of %s: %s", platform.ErrUnavailable, r, c.base, c.explain(err))
		}
	}()
	var body io.Reader = http.NoBody
	if r.body != nil {
		raw, err := json.Marshal(r.body)
		if err != nil {
			return answer{}, fmt.Errorf("encode: %w", err)
		}
		body = bytes.NewReader(raw)
	}
	target := c.base.JoinPath(r.path)
	target.RawQuery = r.query.Encode()
	req, err := http.NewRequestWithContext(bounded, r.method, target.String(), body)
	if err != nil {
		return answer{}, err
	}
	req.SetBasicAuth(c.user, c.secret)
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", userAgent)
	if r.body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, r.most+1))
	if err != nil {
		return answer{status: resp.StatusCode, header: resp.Header}, fmt.Errorf("read the answer: %w", err)
	}
	if int64(len(raw)) > r.most {
		return answer{status: resp.StatusCode, header: resp.Header}, fmt.Errorf("%w: more than %v", errTooLarge, job.Bytes(r.most))
	}
	return answer{resp.StatusCode, resp.Header, raw}, nil
}

// String names a request in errors.
func (r request) String() string { return r.method + " " + r.path }

// explain makes the errors of the transport that users can do something about
// say what.
func (c *Client) explain(err error) string {
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		err = wrapped.Err // it is said already of which URL
	}
	var authority x509.UnknownAuthorityError
	var name x509.HostnameError
	var invalid x509.CertificateInvalidError
	text := c.redact(clip(err.Error(), quoteMax))
	switch {
	case errors.As(err, &authority), errors.As(err, &name), errors.As(err, &invalid):
		return text + "; the server's certificate cannot be verified: install its authority's certificate, or, only if you trust the network, give --insecure"
	case strings.Contains(text, "server gave HTTP response to HTTPS client"):
		return text + "; the API host speaks plain HTTP: write http:// before it"
	case strings.Contains(text, "no such host"):
		return text + "; check --apihost, or APIHOST in ~/.wskprops"
	case strings.Contains(text, "connection refused"):
		return text + "; OpenWhisk does not run there: check --apihost, or APIHOST in ~/.wskprops"
	}
	return text
}

// failure makes the contract's error of a status that is not what was hoped for.
func (c *Client) failure(r request, a answer) error {
	text := c.said(a)
	switch {
	case a.status == http.StatusUnauthorized:
		return fmt.Errorf("%w: %s does not accept the key: %s; give AUTH in ~/.wskprops, or --auth", platform.ErrUnauthorised, c.base, text)
	case a.status == http.StatusForbidden:
		return fmt.Errorf("%w: %s: %s", platform.ErrUnauthorised, r, text)
	case a.status == http.StatusNotFound:
		return fmt.Errorf("%w: %s: %s", platform.ErrNotFound, r, text)
	case a.status == http.StatusTooManyRequests:
		return c.throttled(a, text)
	case a.status == http.StatusServiceUnavailable && isAPIError(a.body):
		// The API itself says so before anything is started: no invoker is healthy.
		return &platform.Throttle{Until: time.Now().Add(unhealthyPause), Text: "no invoker is ready: " + text}
	case a.status >= 300 && a.status < 400:
		return fmt.Errorf("%w: %s: %s sends on to %s; give that as --apihost",
			platform.ErrRefused, r, c.base, clip(c.redact(a.header.Get("Location")), quoteMax))
	case a.status >= 400 && a.status < 500:
		return fmt.Errorf("%w: %s: %s", platform.ErrRefused, r, text)
	default:
		return fmt.Errorf("%w: %s: status %d: %s", platform.ErrUnavailable, r, a.status, text)
	}
}

// ask sends a request that must succeed and decodes its answer.
func (c *Client) ask(ctx context.Context, r request, into any) error {
	a, err := c.do(ctx, r)
	if err != nil {
		return err
	}
	if a.status != http.StatusOK {
		return c.failure(r, a)
	}
	return c.decode(r, a, into)
}

func (c *Client) decode(r request, a answer, into any) error {
	if into == nil {
		return nil
	}
	if err := json.Unmarshal(a.body, into); err != nil {
		return fmt.Errorf("%w: %s: the answer is not what OpenWhisk sends (%s): %s; is %s an OpenWhisk API host?",
			platform.ErrUnavailable, r, clip(a.header.Get("Content-Type"), 40), c.redact(clip(string(a.body), 120)), c.base)
	}
	return nil
}

func isAPIError(body []byte) bool {
	var e apiError
	return json.Unmarshal(body, &e) == nil && e.Code != nil && e.Error != ""
}

// said is what an answer says in words.
func (c *Client) said(a answer) string {
	var e apiError
	if json.Unmarshal(a.body, &e) == nil && e.Error != "" {
		return c.redact(clip(e.Error, quoteMax))
	}
	if text := c.redact(clip(string(a.body), quoteMax)); text != "" {
		return text
	}
	return http.StatusText(a.status)
}

// clip makes one line of a text from outside, of at most so many bytes.
func clip(text string, most int) string {
	if len(text) > 4*most {
		text = text[:4*most] // more could not be shown
	}
	line := strings.Join(strings.Fields(strings.ToValidUTF8(text, "?")), " ")
	if len(line) > most {
		line = strings.ToValidUTF8(line[:most], "") + "..."
	}
	return line
}

// redact takes the key and all init-only parameters out of a text that others
// had a part in.
func (c *Client) redact(text string) string {
	c.mu.Lock()
	secrets := c.secrets
	c.mu.Unlock()
	return secrets.Redact(text)
}

// keepSecret has redact know a value, and the password in it if it is a URL.
func (c *Client) keepSecret(value string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.secrets) < secretsMax {
		c.secrets = c.secrets.With(value)
	}
}

// secretsMax bounds what redact knows.
const secretsMax = 1000
