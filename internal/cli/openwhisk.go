// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"disdel/internal/control"
	"disdel/internal/job"
	"disdel/internal/platform"
	"disdel/internal/platform/openwhisk"
	"disdel/internal/worker"
)

// Environment variables of wsk's, and those that OpenWhisk sets inside actions.
const (
	wskFileEnv      = "WSK_CONFIG_FILE"
	whiskHostEnv    = "WHISK_APIHOST"
	whiskKeyEnv     = "WHISK_AUTH"
	whiskVersionEnv = "WHISK_APIVERSION"
	insideHostEnv   = "__OW_API_HOST"
	insideKeyEnv    = "__OW_API_KEY"
)

// whiskOptions are the flags about an OpenWhisk.
type whiskOptions struct {
	host, key, namespace, kind string
	insecure                   bool
}

// flagPlatforms are flags that make sense with some platforms only.
var flagPlatforms = map[string][]string{
	"apihost": {platformOpenWhisk}, "auth": {platformOpenWhisk}, "insecure": {platformOpenWhisk}, "namespace": {platformOpenWhisk},
	"kind": {platformOpenWhisk}, "image": {platformDocker, platformOpenWhisk}, "folder": {platformDocker},
	"min-memory": {platformProcess, platformDocker}, "max-memory": {platformProcess, platformDocker}, "enforcement": {platformProcess},
}

func (o *options) whiskFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&o.whisk.host, "apihost", "", "API host of OpenWhisk (default: $WHISK_APIHOST, else APIHOST in $WSK_CONFIG_FILE or ~/.wskprops)")
	f.StringVarP(&o.whisk.key, "auth", "u", "", "key of OpenWhisk, which other users of this machine can see while the command runs (default: $WHISK_AUTH, else AUTH in the same file)")
	f.BoolVarP(&o.whisk.insecure, "insecure", "i", false, "accept any certificate of OpenWhisk's")
	f.StringVar(&o.whisk.namespace, "namespace", "_", "namespace of OpenWhisk: name or /name; _ is the key's")
	f.StringVar(&o.whisk.kind, "kind", "", "runtime of OpenWhisk for workers, without --image (default: disdel:default if there is one, else go:default with the worker as a zip)")
}

// checkPlatformFlags refuses flags that the chosen platform does not know, so
// that none is without effect.
func checkPlatformFlags(platform string, cmd *cobra.Command) error {
	platform = cmp.Or(platform, platformProcess)
	for _, name := range slices.Sorted(maps.Keys(flagPlatforms)) {
		if known := flagPlatforms[name]; cmd.Flags().Changed(name) && !slices.Contains(known, platform) {
			return usagef("--%s needs --platform %s", name, strings.Join(known, " or "))
		}
	}
	return nil
}

// opened is a platform that a command runs on.
type opened struct {
	platform.Platform
	// probes may be nil.
	probes control.Probes
	close  func() error
}

// choosePlatform opens the platform that the options name, for workers on the
// store at the address where.
func (a *app) choosePlatform(ctx context.Context, o *options, init map[string]string, where string) (*opened, error) {
	if o.platform == platformDocker {
		o.folders = storeFolders(init[worker.StoreEnv])
	}
	if o.platform != platformOpenWhisk {
		p, workerPath, err := a.openPlatform(ctx, o)
		if err != nil {
			return nil, err
		}
		limits, err := p.Limits(ctx)
		if err != nil {
			return nil, errors.Join(err, p.Close())
		}
		var probes control.Probes
		if o.platform != platformDocker { // whose program lies where only the engine can have it read anew
			probes = a.openProbes(workerPath, p.Name(), limits.Enforcement, where, o.spec.KernelForm())
		}
		return &opened{p, probes, p.Close}, nil
	}
	// Before anybody is asked.
	if err := checkReach(platformOpenWhisk, job.Limits{}, init); err != nil {
		return nil, err
	}
	cfg, err := a.whiskConfig(o)
	if err != nil {
		return nil, err
	}
	c, err := openwhisk.Open(cfg)
	if err != nil {
		return nil, usageError{err}
	}
	if away(cfg.Host, init) {
		a.warn(errors.New("containers of an OpenWhisk elsewhere cannot reach a store on this machine's own address; give the one that they see with --worker-store"))
	}
	// No measurement is kept: which machines serve, and what the image is, can
	// have changed since.
	return &opened{c, nil, c.Close}, nil
}

// away says that workers elsewhere are told of a store on the loopback address.
func away(apihost string, init map[string]string) bool {
	loopback := func(text string) bool {
		if !strings.Contains(text, "://") {
			text = "https://" + text
		}
		u, err := url.Parse(text)
		if err != nil {
			return false
		}
		ip := net.ParseIP(u.Hostname())
		return u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()
	}
	return loopback(init[worker.StoreEnv]) && !loopback(apihost)
}

// whiskConfig joins flags, environment and wsk's file, in this order.
func (a *app) whiskConfig(o *options) (openwhisk.Config, error) {
	props, err := a.wskProperties()
	if err != nil {
		return openwhisk.Config{}, err
	}
	return openwhisk.Config{
		Host:        cmp.Or(o.whisk.host, a.getenv(whiskHostEnv), props.Host, a.getenv(insideHostEnv)),
		Key:         cmp.Or(o.whisk.key, a.getenv(whiskKeyEnv), props.Key, a.getenv(insideKeyEnv)),
		APIVersion:  cmp.Or(a.getenv(whiskVersionEnv), props.APIVersion),
		Certificate: props.Certificate, CertificateKey: props.CertificateKey,
		Namespace: o.whisk.namespace, Insecure: o.whisk.insecure, Image: o.image, Kind: o.whisk.kind,
		Worker: a.workerProgram, PoolMemory: o.pool.PoolMemory,
	}, nil
}

// wskProperties reads the file that wsk would read. Like wsk it does without one
// that the user did not name.
func (a *app) wskProperties() (p openwhisk.Properties, err error) {
	path, given := a.lookup(wskFileEnv)
	if !given {
		home := a.getenv("HOME")
		if !filepath.IsAbs(home) {
			return p, nil
		}
		path = filepath.Join(home, ".wskprops")
	}
	if path == "" {
		return p, nil
	}
	file, err := os.Open(path)
	switch {
	case err == nil:
	case !given && errors.Is(err, fs.ErrNotExist):
		return p, nil
	default:
		return p, usagef("wsk's properties: %w; set %s, or give --apihost and --auth", err, wskFileEnv)
	}
	defer file.Close()
	if p, err = openwhisk.ParseProperties(file); err != nil {
		return p, usagef("%s: %w", path, err)
	}
	return p, nil
}

// workerProgramMax bounds the worker program that is read: more could not be
// sent.
const workerProgramMax = 64 << 20

// workerProgram reads the worker beside this program.
func (a *app) workerProgram() ([]byte, error) {
	path, own, err := a.workerCommand()
	if err != nil {
		return nil, err
	}
	if own {
		return nil, errors.New("there is no disdel-worker beside this program, and OpenWhisk wants it alone; build both with: make, or give --image or --kind")
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("read the worker: %w", err)
	}
	if info.Size() > workerProgramMax {
		return nil, fmt.Errorf("the worker %s has %v, more than OpenWhisk takes; build it with: make", path, job.Bytes(info.Size()))
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the worker: %w", err)
	}
	return raw, nil
}

// lookup is getenv that knows empty variables from missing ones.
func (a *app) lookup(name string) (string, bool) {
	if a.lookupenv != nil {
		return a.lookupenv(name)
	}
	value := a.getenv(name)
	return value, value != ""
}
