// SPDX-License-Identifier: Apache-2.0

package whiskapi

import (
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"disdel/internal/job"
	"disdel/internal/platform/pool"
)

// Generation says as which OpenWhisk the server speaks.
type Generation int

// The generations.
const (
	V1 Generation = 1 // 1.0.0
	V2 Generation = 2 // 2.0.0 and later
)

// Config says what a server offers. A zero field gets its default.
type Config struct {
	// Pool runs the actions; its owner closes it. Its own limits on memory and
	// time do not matter here.
	Pool *pool.Pool
	// Users may call the server; there is at least one.
	Users []User
	// Kinds are the managed kinds of actions.
	Kinds []Kind
	// RunsImages says that the pool's driver runs images. Otherwise its own
	// worker serves all managed kinds, and blackbox actions of WorkerImages.
	RunsImages bool
	// WorkerImages are names of images without tag, "disdel/worker", that stand
	// for the pool's own worker where it runs no images.
	WorkerImages []string
	// Generation is the OpenWhisk to be. Default V2.
	Generation Generation
	// Limits bound what users may ask for.
	Limits Limits
	// PackageMax, ActionMax and EntityBytesMax bound the entities that are kept, of
	// all users together; bytes are those of code, parameters and annotations.
	// Defaults 1000, 5000 and 512 MB.
	PackageMax, ActionMax int
	EntityBytesMax        job.Bytes
	// RecordMax and RecordBytesMax bound the records that are kept. Defaults
	// 10000 and 256 MB.
	RecordMax      int
	RecordBytesMax job.Bytes
	// Faults are what a client has to bear elsewhere. Default none.
	Faults Faults
}

// User is a namespace and its key.
type User struct {
	Namespace string
	UUID      string
	Secret    string // 64 characters
}

// Key is the user's key as in a wskprops file.
func (u User) Key() string { return u.UUID + ":" + u.Secret }

// Kind is a managed kind of actions.
type Kind struct {
	// Name is "family:version".
	Name string
	// Image runs it, where the pool runs images.
	Image string
	// Default makes it the one that "family:default" means.
	Default, Deprecated, RequireMain bool
}

// Limits bound what users may ask for. Zero fields get OpenWhisk's defaults.
type Limits struct {
	MemoryMin, MemoryDefault, MemoryMax    job.Bytes     // 128, 256, 512 MB
	TimeoutMin, TimeoutDefault, TimeoutMax time.Duration // 100 ms, 1 min, 5 min
	LogsMin, LogsDefault, LogsMax          job.Bytes     // 0, 10, 10 MB
	// PerMinute and Concurrent bound a namespace's calls. Defaults 60 and 30.
	PerMinute, Concurrent int
	// Wait is the most that a blocking call waits. Default 1 min.
	Wait time.Duration
}

// Faults are what a real OpenWhisk does to its clients now and then.
type Faults struct {
	// RecordDelay is how much later than the answer a record appears. The container
	// is busy for as long.
	RecordDelay time.Duration
	// BreakDelay is how much later than they happened a broken connection and an
	// expired time limit are answered: 11 s with OpenWhisk's Docker factory.
	BreakDelay time.Duration
	// HideMemory says that a container killed by its memory limit looks like one
	// that broke: Kubernetes, or a standalone server.
	HideMemory bool
	// Request is asked about every request; nil does nothing to any.
	Request func(r *http.Request) Fault
}

// Fault is what becomes of one request.
type Fault struct {
	// Status other than 0 is the answer in place of the real one; nothing is done.
	Status int
	// Drop closes the connection in place of answering what was done.
	Drop bool
}

// Sizes that OpenWhisk fixes.
const (
	payloadMax    = job.MB
	parametersMax = job.MB
	codeMax       = 48 * job.MB
	bodyMax       = 50 * job.MB
	uriMax        = 8 << 10
	listMax       = 200
	listDefault   = 30
	nameMax       = 256
)

func (c Config) withDefaults() Config {
	setDefault(&c.Generation, V2)
	l := &c.Limits
	setDefault(&l.MemoryMin, 128*job.MB)
	setDefault(&l.MemoryMax, max(512*job.MB, l.MemoryMin, l.MemoryDefault))
	setDefault(&l.MemoryDefault, min(max(256*job.MB, l.MemoryMin), l.MemoryMax))
	setDefault(&l.TimeoutMin, 100*time.Millisecond)
	setDefault(&l.TimeoutMax, max(5*time.Minute, l.TimeoutMin, l.TimeoutDefault))
	setDefault(&l.TimeoutDefault, min(max(time.Minute, l.TimeoutMin), l.TimeoutMax))
	setDefault(&l.LogsMax, max(10*job.MB, l.LogsDefault))
	setDefault(&l.LogsDefault, l.LogsMax)
	setDefault(&l.PerMinute, 60)
	setDefault(&l.Concurrent, 30)
	setDefault(&l.Wait, time.Minute)
	setDefault(&c.PackageMax, 1000)
	setDefault(&c.ActionMax, 5000)
	setDefault(&c.EntityBytesMax, 512*job.MB)
	setDefault(&c.RecordMax, 10000)
	setDefault(&c.RecordBytesMax, 256*job.MB)
	return c
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

var (
	uuidPattern   = regexp.MustCompile(`\A[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}\z`)
	secretPattern = regexp.MustCompile(`\A[0-9A-Za-z]{64}\z`)
	kindPattern   = regexp.MustCompile(`\A[0-9a-z._-]+:[0-9a-z._-]+\z`)
)

// validate checks a configuration whose defaults are filled in.
func (c Config) validate() error {
	var errs []error
	want := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	l := c.Limits
	want(c.Pool != nil, "no pool")
	want(len(c.Users) > 0, "no user: at least one is needed")
	seen := map[string]bool{}
	for _, u := range c.Users {
		want(namePattern.MatchString(u.Namespace) && u.Namespace != "_", "namespace %q is no name", u.Namespace)
		want(uuidPattern.MatchString(u.UUID), "key of namespace %q: its first part is no UUID", u.Namespace)
		want(secretPattern.MatchString(u.Secret), "key of namespace %q: its second part is not 64 letters and digits", u.Namespace)
		want(!seen[u.Namespace] && !seen[strings.ToLower(u.UUID)], "namespace %q or its UUID is there twice", u.Namespace)
		seen[u.Namespace], seen[strings.ToLower(u.UUID)] = true, true
	}
	for i, k := range c.Kinds {
		want(kindPattern.MatchString(k.Name), "kind %q: want family:version", k.Name)
		want(!slices.ContainsFunc(c.Kinds[:i], func(other Kind) bool { return other.Name == k.Name }), "kind %q is there twice", k.Name)
		if c.RunsImages {
			_, err := parseImage(k.Image)
			want(err == nil, "kind %q: image %q: %w", k.Name, k.Image, err)
		}
	}
	want(c.Generation == V1 || c.Generation == V2, "generation %d: want %d or %d", c.Generation, V1, V2)
	want(l.MemoryMin > 0 && l.MemoryMin <= l.MemoryDefault && l.MemoryDefault <= l.MemoryMax,
		"memory %v, %v, %v: want minimum, default and maximum in this order", l.MemoryMin, l.MemoryDefault, l.MemoryMax)
	want(l.MemoryMin%job.MB == 0 && l.MemoryDefault%job.MB == 0 && l.MemoryMax%job.MB == 0, "memory limits are not in whole MB")
	want(l.TimeoutMin > 0 && l.TimeoutMin <= l.TimeoutDefault && l.TimeoutDefault <= l.TimeoutMax,
		"time limits %v, %v, %v: want minimum, default and maximum in this order", l.TimeoutMin, l.TimeoutDefault, l.TimeoutMax)
	want(l.LogsMin >= 0 && l.LogsMin <= l.LogsDefault && l.LogsDefault <= l.LogsMax,
		"log limits %v, %v, %v: want minimum, default and maximum in this order", l.LogsMin, l.LogsDefault, l.LogsMax)
	want(l.PerMinute > 0 && l.Concurrent > 0, "%d calls a minute and %d at once: want more than 0", l.PerMinute, l.Concurrent)
	want(l.Wait > 0, "wait %v: want more than 0", l.Wait)
	want(c.PackageMax > 0 && c.ActionMax > 0 && c.EntityBytesMax > 0 && c.RecordMax > 0 && c.RecordBytesMax > 0,
		"what is kept must be bounded by more than 0")
	return errors.Join(errs...)
}
