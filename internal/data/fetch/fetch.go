// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// PartSuffix marks a file that is not complete.
const PartSuffix = ".part"

// ErrChecksum: Fetch, when every mirror has other contents than the published.
var ErrChecksum = errors.New("other contents than published")

// File is a published file.
type File struct {
	Name   string   // for people
	URLs   []string // where it is, best first
	Bytes  int64
	SHA256 string // hexadecimal
}

// Defaults of a Fetcher.
const (
	// DefaultStall is far above the pauses of a bad line.
	DefaultStall = 30 * time.Second
	// DefaultTries outlasts a short outage: the pauses add up to half a minute.
	DefaultTries = 6

	maxRedirects = 5
	firstPause   = time.Second
	longestPause = 15 * time.Second
	// maxRequests bounds a download that always gets a little further.
	maxRequests = 100
	// maxRestarts bounds how often a download that was pieced together and came
	// out wrong is begun anew.
	maxRestarts = 2
)

// Fetcher downloads files. The zero value is ready.
type Fetcher struct {
	// Client makes the requests; redirects are bounded whatever its own rule.
	// Default: one with the usual limits of time and the environment's proxy.
	Client *http.Client
	// Stall is how long nothing may arrive, from the request on, before it is
	// given up and tried again. Default DefaultStall.
	Stall time.Duration
	// Tries is how often in a row nothing new may arrive. Default DefaultTries.
	Tries int
	// Progress is told how much of a file is here. Default: nobody is.
	Progress func(f File, done int64)
	// Pause waits, or returns ctx's error. Default: it does so by the clock.
	Pause func(ctx context.Context, d time.Duration) error
	// Jitter returns a number of 0 to 1 by which pauses differ. Default: random.
	Jitter func() float64
}

func (f Fetcher) withDefaults() Fetcher {
	if f.Client == nil {
		f.Client = defaultClient()
	}
	client := *f.Client
	client.CheckRedirect = checkRedirect
	f.Client = &client
	if f.Stall == 0 {
		f.Stall = DefaultStall
	}
	if f.Tries == 0 {
		f.Tries = DefaultTries
	}
	if f.Progress == nil {
		f.Progress = func(File, int64) {}
	}
	if f.Pause == nil {
		f.Pause = pause
	}
	if f.Jitter == nil {
		f.Jitter = rand.Float64
	}
	return f
}

func defaultClient() *http.Client {
	return &http.Client{Transport: &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 15 * time.Second}).DialContext,
		ForceAttemptHTTP2:     true,
		TLSHandshakeTimeout:   10 * time.Second,
		ResponseHeaderTimeout: 20 * time.Second,
		IdleConnTimeout:       30 * time.Second,
	}}
}

var errRedirects = errors.New("refused redirect")

func checkRedirect(req *http.Request, via []*http.Request) error {
	if len(via) > maxRedirects {
		return fmt.Errorf("%w: more than %d of them", errRedirects, maxRedirects)
	}
	if s := req.URL.Scheme; s != "https" && (s != "http" || via[0].URL.Scheme == "https") {
		return fmt.Errorf("%w: from %s to %s", errRedirects, via[0].URL.Scheme, s)
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// permanentError is one that asking the same mirror again does not mend.
type permanentError struct{ error }

func (e permanentError) Unwrap() error { return e.error }

func isPermanent(err error) bool {
	var p permanentError
	return errors.As(err, &p)
}

// localError is about this machine, where no mirror helps.
type localError struct{ error }

func (e localError) Unwrap() error { return e.error }

// Fetch downloads the file to path, in a folder that it makes if need be. A
// file that is there already is replaced.
func (f Fetcher) Fetch(ctx context.Context, file File, path string) (err error) {
	f = f.withDefaults()
	if err := ctx.Err(); err != nil {
		return err
	}
	if len(file.URLs) == 0 {
		return fmt.Errorf("download %s: nobody publishes it", file.Name)
	}
	part, err := openPart(path)
	if err != nil {
		return fmt.Errorf("download %s: %w", file.Name, err)
	}
	defer func() { err = errors.Join(err, part.close()) }()
	d := download{Fetcher: f, file: file, part: part, mirrors: append([]string(nil), file.URLs...), problems: map[string]error{}}
	if err := d.run(ctx); err != nil {
		if ctx.Err() != nil {
			return fmt.Errorf("download %s: %w", file.Name, context.Cause(ctx))
		}
		return fmt.Errorf("download %s: %w", file.Name, err)
	}
	if err := part.finish(path); err != nil {
		return fmt.Errorf("download %s: %w", file.Name, err)
	}
	return nil
}

// download is one call of Fetch.
type download struct {
	Fetcher
	file File
	part *part

	sum  hash.Hash // of the part file's done bytes
	done int64
	// mixed says that the part file may come from several versions of the file.
	mixed bool

	mirrors []string // those that are still asked, the next one first
	// from and validator say which mirror gave the bytes so far and how it named
	// that version of the file; "" is unknown.
	from, validator string
	problems        map[string]error // the last one of each mirror
}

// run brings the whole file into the part file.
func (d *download) run(ctx context.Context) error {
	if err := d.resume(ctx); err != nil {
		return err
	}
	d.Progress(d.file, d.done)
	fruitless, restarts := 0, 0
	for range maxRequests {
		if d.done < d.file.Bytes {
			before := d.done
			err := d.request(ctx)
			switch local := (localError{}); {
			case errors.As(err, &local):
				return err
			case ctx.Err() != nil:
				return ctx.Err()
			case err != nil:
				if err := d.next(ctx, err, d.done > before, &fruitless); err != nil {
					return err
				}
				continue
			}
		}
		got := hex.EncodeToString(d.sum.Sum(nil))
		if got == d.file.SHA256 {
			return nil
		}
		wrong := fmt.Errorf("%w: SHA-256 %s, want %s", ErrChecksum, got, d.file.SHA256)
		again := d.mixed && restarts < maxRestarts
		if err := d.restart(); err != nil {
			return err
		}
		if again {
			// Whose bytes are wrong cannot be told: from the start once more.
			restarts++
			continue
		}
		if err := d.next(ctx, permanentError{wrong}, false, &fruitless); err != nil {
			return err
		}
	}
	return d.failure(fmt.Errorf("not complete after %d requests", maxRequests))
}

// next decides which mirror is asked after an error, and waits before the same
// one is.
func (d *download) next(ctx context.Context, problem error, further bool, fruitless *int) error {
	first := d.mirrors[0]
	d.problems[first] = problem
	d.mirrors = d.mirrors[1:]
	if !isPermanent(problem) {
		d.mirrors = append(d.mirrors, first)
	}
	if len(d.mirrors) == 0 {
		return d.failure(nil)
	}
	if further {
		*fruitless = 0
	}
	if isPermanent(problem) {
		return nil
	}
	if *fruitless++; *fruitless >= d.Tries {
		return d.failure(nil)
	}
	wait := min(longestPause, firstPause<<min(*fruitless-1, 10))
	return d.Pause(ctx, time.Duration(float64(wait)*(0.5+d.Jitter()/2)))
}

// failure tells what went wrong with each mirror.
func (d *download) failure(also error) error {
	all := []error{}
	for _, mirror := range d.file.URLs {
		if err := d.problems[mirror]; err != nil {
			all = append(all, fmt.Errorf("%s: %w", mirror, err))
		}
	}
	if also != nil {
		all = append(all, also)
	}
	if len(all) == 1 {
		return all[0]
	}
	texts := make([]string, len(all))
	args := make([]any, len(all))
	for i, err := range all {
		texts[i], args[i] = "%w", err
	}
	return fmt.Errorf(strings.Join(texts, "; "), args...)
}

// resume takes over what an earlier call has left.
func (d *download) resume(ctx context.Context) error {
	d.sum = sha256.New()
	size, err := d.part.size()
	if err != nil {
		return err
	}
	if size > d.file.Bytes {
		return d.restart()
	}
	stopping := readFunc(func(b []byte) (int, error) {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		return d.part.file.Read(b)
	})
	n, err := io.Copy(d.sum, io.LimitReader(stopping, size))
	if err != nil {
		return fmt.Errorf("read what there is: %w", err)
	}
	d.done, d.mixed = n, n > 0
	return nil
}

// restart throws away what is there.
func (d *download) restart() error {
	if err := d.part.truncate(); err != nil {
		return localError{err}
	}
	d.sum, d.done, d.mixed, d.from, d.validator = sha256.New(), 0, false, "", ""
	return nil
}

// request asks the next mirror for what is missing and writes what it sends.
func (d *download) request(ctx context.Context) error {
	mirror := d.mirrors[0]
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stalled := fmt.Errorf("nothing arrived for %v", d.Stall)
	timer := time.AfterFunc(d.Stall, func() { cancel(stalled) })
	defer timer.Stop()

	req, err := http.NewRequestWithContext(ctx, http.MethodGet, mirror, nil)
	if err != nil {
		return permanentError{err}
	}
	req.Header.Set("User-Agent", "disdel")
	// What is hashed is the file itself, not what a server packs it into.
	req.Header.Set("Accept-Encoding", "identity")
	if d.done > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", d.done))
		if d.validator != "" && d.from == mirror {
			req.Header.Set("If-Range", d.validator)
		}
	}
	resp, err := d.Client.Do(req)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			return cause
		}
		var unknown *net.DNSError
		if errors.Is(err, errRedirects) || errors.As(err, &unknown) && unknown.IsNotFound {
			return permanentError{bare(err)}
		}
		return bare(err)
	}
	defer resp.Body.Close()
	if err := d.accept(resp, mirror); err != nil {
		return err
	}
	if err := d.receive(ctx, resp.Body, timer); err != nil {
		return err
	}
	if d.done < d.file.Bytes {
		return fmt.Errorf("the connection ended at byte %d of %d", d.done, d.file.Bytes)
	}
	return nil
}

// accept looks at an answer and brings the part file to where its body starts.
func (d *download) accept(resp *http.Response, mirror string) error {
	validator := resp.Header.Get("ETag")
	if strings.HasPrefix(validator, "W/") {
		validator = "" // a weak one does not name bytes
	}
	switch {
	case resp.StatusCode == http.StatusOK:
		// Without ranges, or the file has changed: all of it, from the start.
		if resp.ContentLength >= 0 && resp.ContentLength != d.file.Bytes {
			return permanentError{fmt.Errorf("the file there has %d bytes, want %d", resp.ContentLength, d.file.Bytes)}
		}
		if d.done > 0 {
			if err := d.restart(); err != nil {
				return err
			}
		}
	case resp.StatusCode == http.StatusPartialContent && d.done > 0:
		want := fmt.Sprintf("bytes %d-%d/%d", d.done, d.file.Bytes-1, d.file.Bytes)
		if got := resp.Header.Get("Content-Range"); got != want {
			return permanentError{fmt.Errorf("the server sends %.60q, want %q", got, want)}
		}
		if d.from != mirror || validator == "" || validator != d.validator {
			d.mixed = true
		}
	case resp.StatusCode == http.StatusRequestTimeout, resp.StatusCode == http.StatusTooManyRequests, resp.StatusCode >= 500:
		return fmt.Errorf("the server answers %s", resp.Status)
	default:
		return permanentError{fmt.Errorf("the server answers %s", resp.Status)}
	}
	d.from, d.validator = mirror, validator
	return nil
}

// receive writes a body to the part file, no more than is missing.
func (d *download) receive(ctx context.Context, body io.Reader, timer *time.Timer) error {
	buf := make([]byte, 256<<10)
	for {
		n, err := body.Read(buf)
		if n > 0 {
			timer.Reset(d.Stall)
			if int64(n) > d.file.Bytes-d.done {
				if err := d.restart(); err != nil {
					return err
				}
				return permanentError{fmt.Errorf("the server sends more than %d bytes", d.file.Bytes)}
			}
			if _, err := d.part.file.Write(buf[:n]); err != nil {
				return localError{fmt.Errorf("%w (at byte %d of %d)", err, d.done, d.file.Bytes)}
			}
			d.sum.Write(buf[:n])
			d.done += int64(n)
			d.Progress(d.file, d.done)
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil && context.Cause(ctx) != nil:
			return context.Cause(ctx)
		case err != nil:
			return fmt.Errorf("byte %d of %d: %w", d.done, d.file.Bytes, err)
		}
	}
}

// bare takes off what net/http puts around an error: the URL is told anyway.
func bare(err error) error {
	var around *url.Error
	if errors.As(err, &around) {
		return around.Err
	}
	return err
}

type readFunc func(b []byte) (int, error)

func (f readFunc) Read(b []byte) (int, error) { return f(b) }
