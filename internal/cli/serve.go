// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"disdel/internal/job"
	"disdel/internal/platform/pool"
	"disdel/internal/platform/whiskapi"
)

// serveOptions are the flags of platform serve alone.
type serveOptions struct {
	listen, keyFile, manifest string
	perMinute, concurrent     int
	timeoutMax                time.Duration
	generation                string
}

// workerKind is the managed kind of actions that the worker serves, and
// workerImage the name of its image.
const (
	workerKind  = "disdel:1"
	workerImage = "disdel/worker"
)

func (a *app) platformServeCommand() *cobra.Command {
	o, so := &options{}, &serveOptions{}
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Serve the embedded platform as an OpenWhisk",
		Long: `Serve offers the embedded platform under OpenWhisk's REST API: to
disdel --platform openwhisk, to wsk, and to any other client. It has packages with
bindings, actions, activations with logs, limits and Prometheus metrics (/metrics);
triggers, rules and sequences are answered with 501. What it keeps, it keeps in
memory: actions and records end with the server.

With --platform process all actions are disdel's worker: those of kind ` + workerKind + `, and
blackbox actions of the image ` + workerImage + `. With --platform docker actions run in
images: blackbox actions in their own, ` + workerKind + ` in the worker's, other kinds as
the runtimes manifest says.

It listens on the loopback address unless told otherwise: there is no TLS, so the key
and all data can be read on the way. The key is made at the first start and kept in
the key file, in wskprops form.`,
		Example: `  disdel platform serve
  WSK_CONFIG_FILE=~/.config/disdel/wskprops wsk action list
  WSK_CONFIG_FILE=~/.config/disdel/wskprops disdel train digits --platform openwhisk --store redis://127.0.0.1:6379`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.serve(cmd.Context(), o, so) },
	}
	f := cmd.Flags()
	f.StringVar(&so.listen, "listen", "127.0.0.1:3233", "address and port to listen on")
	f.StringVar(&so.keyFile, "key-file", "", "file with the key, in wskprops form; made if it is missing (default: wskprops in the user's configuration folder)")
	f.StringVar(&so.manifest, "manifest", "", "runtimes manifest of OpenWhisk's, with kinds and stem cells (default: "+workerKind+" alone)")
	f.Var(countValue{&so.perMinute}, "per-minute", "most invocations of a namespace in a minute (default 60)")
	f.Var(countValue{&so.concurrent}, "concurrent", "most invocations of a namespace at once (default 30)")
	f.Var(durationValue{&so.timeoutMax}, "max-timeout", "largest time limit of an action (default 300)")
	f.StringVar(&so.generation, "generation", "2", "the OpenWhisk to speak as: 1 (1.0.0) or 2 (2.0.0 and later)")
	f.StringArrayVar(&o.folders, "folder", nil, "folder that containers see under the same path and may write to, for --platform docker; may be given several times")
	f.Var(platformValue{&o.platform, []string{platformProcess, platformDocker}}, "platform", "what containers are: process (child processes) or docker")
	f.StringVar(&o.image, "image", "", "image of the worker, for --platform docker (default: made of the worker beside this program)")
	o.containerFlags(cmd)
	cmd.PreRunE = func(cmd *cobra.Command, _ []string) error { return checkPlatformFlags(o.platform, cmd) }
	return cmd
}

// drainTimeout bounds how long answers may take once the server ends.
const drainTimeout = 5 * time.Second

func (a *app) serve(ctx context.Context, o *options, so *serveOptions) (err error) {
	generations := map[string]whiskapi.Generation{"1": whiskapi.V1, "2": whiskapi.V2}
	generation, ok := generations[so.generation]
	if !ok {
		return usagef("--generation %q: want 1 or 2", so.generation)
	}
	if _, _, err := net.SplitHostPort(so.listen); err != nil {
		return usagef("--listen %q: want HOST:PORT: %w", so.listen, err)
	}
	if so.keyFile == "" {
		folder, err := a.userFolder(configHomeEnv, ".config")
		if err != nil {
			return err
		}
		so.keyFile = filepath.Join(folder, "wskprops")
	}
	kinds := []whiskapi.Kind{{Name: workerKind, Image: o.image, Default: true}}
	if so.manifest != "" {
		if kinds, o.pool.StemCells, err = readManifest(so.manifest); err != nil {
			return usagef("%w", err)
		}
	}
	images := o.platform == platformDocker
	for i := range o.pool.StemCells {
		if !images {
			o.pool.StemCells[i].Image = "" // the pool's own worker is all there is
		}
	}
	// The server throttles each namespace; what comes through may queue.
	o.pool.Concurrency = max(1000, 2*so.concurrent)
	p, _, err := a.openPlatform(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	for i := range kinds {
		if kinds[i].Image == "" {
			kinds[i].Image = o.image // it is known now
		}
	}
	limits, err := p.Limits(ctx)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", so.listen)
	if err != nil {
		return fmt.Errorf("listen: %w; choose another address with --listen", err)
	}
	defer listener.Close()
	address := publicAddress(listener.Addr())
	user, made, err := readKeyFile(so.keyFile, address)
	if err != nil {
		return err
	}
	server, err := whiskapi.New(whiskapi.Config{
		Pool: p, Users: []whiskapi.User{user}, Kinds: kinds, RunsImages: images, WorkerImages: []string{workerImage}, Generation: generation,
		Limits: whiskapi.Limits{
			MemoryMin: limits.MemoryMin, MemoryDefault: limits.MemoryDefault, MemoryMax: limits.MemoryMax,
			TimeoutMax: so.timeoutMax, PerMinute: so.perMinute, Concurrent: so.concurrent,
		},
	})
	if err != nil {
		return usagef("%w", err)
	}
	a.announce(so, listener.Addr(), address, limits, made)
	return serveUntil(ctx, server, listener, p)
}

func readManifest(path string) ([]whiskapi.Kind, []pool.StemCell, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, nil, fmt.Errorf("--manifest: %w", err)
	}
	defer file.Close()
	return whiskapi.ParseManifest(file)
}

// publicAddress is how clients on this machine reach the server.
func publicAddress(addr net.Addr) string {
	host, port, err := net.SplitHostPort(addr.String())
	if ip := net.ParseIP(host); err == nil && ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return "http://" + net.JoinHostPort(host, port)
}

func (a *app) announce(so *serveOptions, bound net.Addr, address string, limits job.Limits, made bool) {
	fmt.Fprintln(a.stdout, address)
	what := "its key is in"
	if made {
		what = "a new key was made, it is in"
	}
	fmt.Fprintf(a.stderr, "disdel: serving OpenWhisk's API at %s; %s %s\n", address, what, so.keyFile)
	fmt.Fprintf(a.stderr, "disdel: actions of %v to %v, %v for all containers, limits by %s\n",
		limits.MemoryMin, limits.MemoryMax, limits.PoolMemory, limits.Enforcement)
	if tcp, ok := bound.(*net.TCPAddr); ok && !tcp.IP.IsLoopback() {
		fmt.Fprintf(a.stderr, "disdel: others can reach %v: without TLS the key and all data can be read on the way\n", bound)
	}
}

// serveUntil serves until ctx is done, then ends all calls.
func serveUntil(ctx context.Context, server *whiskapi.Server, listener net.Listener, p *pool.Pool) error {
	h := server.HTTP()
	served := make(chan error, 1)
	go func() { served <- h.Serve(listener) }()
	var err error
	select {
	case err = <-served:
	case <-ctx.Done():
	}
	// Calls that are waited for end with the pool.
	closed := p.Close()
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
	defer cancel()
	if h.Shutdown(drain) != nil {
		_ = h.Close() // who does not take his answer goes without
	}
	if err == nil {
		err = <-served
	}
	if closed == nil { // else there are calls that never end
		server.Wait()
	}
	if errors.Is(err, http.ErrServerClosed) {
		err = nil
	}
	return errors.Join(err, closed)
}
