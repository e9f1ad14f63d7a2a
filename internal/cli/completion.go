// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"disdel/internal/control"
	"disdel/internal/data"
	"disdel/internal/job"
	"disdel/internal/nn"
	"disdel/internal/store"
)

const (
	// completionTime bounds how long a shell waits for a store.
	completionTime = 2 * time.Second
	// maxCompletions bounds what it is offered.
	maxCompletions = 200
)

// completer offers words for the one that is being typed.
type completer = cobra.CompletionFunc

// words offers fixed ones.
func words(all ...string) completer {
	return func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return all, cobra.ShellCompDirectiveNoFileComp
	}
}

// completeDataset offers data sets for the first argument, files too: a path is a
// data set.
func completeDataset(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return data.Names(), cobra.ShellCompDirectiveDefault
}

// completeModel offers the models that can be trained, and files.
func completeModel(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return nn.Names(), cobra.ShellCompDirectiveDefault
}

// fromStore looks something up in the store, as far as it answers soon. What goes
// wrong then shows when the command is run.
func (a *app) fromStore(o *options, look func(context.Context, store.Store) ([]string, error)) []string {
	ctx, cancel := context.WithTimeout(context.Background(), completionTime)
	defer cancel()
	s, err := a.openToRead(ctx, o.store)
	if err != nil {
		return nil
	}
	found, err := look(ctx, s)
	if err = errors.Join(err, s.Close()); err != nil {
		return nil
	}
	return found[:min(len(found), maxCompletions)]
}

// digests lists the models of a data set, of all for "", with what they are.
func (a *app) digests(o *options, dataset string) []string {
	return a.fromStore(o, func(ctx context.Context, s store.Store) (found []string, err error) {
		models, err := control.Models(ctx, s, nil)
		for _, m := range models {
			if dataset == "" || m.Dataset == dataset {
				const digits = 12
				found = append(found, m.Digest[:min(digits, len(m.Digest))]+"\t"+printable(m.Name+" on "+m.Dataset))
			}
		}
		return found, err
	})
}

// completeDigest offers the models of the data set that infer is given.
func (a *app) completeDigest(o *options) completer {
	return func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		dataset := ""
		if len(args) > 0 {
			dataset = args[0]
			if found, err := data.Find(dataset); err == nil {
				dataset = found.Info().Name
			}
		}
		return a.digests(o, dataset), cobra.ShellCompDirectiveNoFileComp
	}
}

// completeStored offers models for the first argument, files for the others.
func (a *app) completeStored(o *options) completer {
	return func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveDefault
		}
		found := a.digests(o, "")
		seen := map[string]bool{}
		for _, line := range found {
			if _, dataset, ok := strings.Cut(line, " on "); ok && !seen[dataset] {
				seen[dataset] = true
				found = append(found, dataset+"\tthe newest model of it")
			}
		}
		return found, cobra.ShellCompDirectiveDefault
	}
}

// completeJob offers jobs, the newest first.
func (a *app) completeJob(o *options) completer {
	return func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return a.fromStore(o, func(ctx context.Context, s store.Store) (found []string, err error) {
			logs, err := s.Logs(ctx, job.LogPrefix)
			for i := len(logs) - 1; i >= 0; i-- {
				found = append(found, strings.TrimPrefix(logs[i], job.LogPrefix))
			}
			return found, err
		}), cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveKeepOrder
	}
}

// complete has the shell offer words for a flag.
func complete(cmd *cobra.Command, flag string, with completer) {
	if err := cmd.RegisterFlagCompletionFunc(flag, with); err != nil {
		panic("BUG: completion of --" + flag + ": " + err.Error())
	}
}
