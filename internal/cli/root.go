// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"disdel/internal/control"
	"disdel/internal/data"
	"disdel/internal/job"
	"disdel/internal/nn"
	"disdel/internal/plan"
	"disdel/internal/worker"
)

// Exit codes.
const (
	ExitOK          = 0
	ExitFailed      = 1
	ExitUsage       = 2
	ExitInterrupted = 130
)

const longHelp = `disdel trains and evaluates neural networks on serverless platforms, inside
their hard limits on memory and time.

Exit codes: 0 success, 1 the job failed, 2 wrong usage, 130 interrupted.
Data goes to stdout, progress and problems to stderr. NO_COLOR is honoured.`

// app is what the commands share.
type app struct {
	stdout, stderr io.Writer
	getenv         func(string) string
	// terminal says that stderr is one: progress bars and colour make sense.
	terminal bool
}

// Run carries out one command line, given without the program's name, and
// returns the process's exit code. A process that a platform started as a
// worker becomes one, whatever its arguments.
func Run(ctx context.Context, args []string, stdout, stderr *os.File) int {
	if worker.Wanted() {
		return worker.Main(ctx, stderr)
	}
	a := &app{stdout: stdout, stderr: stderr, getenv: os.Getenv, terminal: term.IsTerminal(int(stderr.Fd()))}
	return a.run(ctx, args)
}

func (a *app) run(ctx context.Context, args []string) int {
	root := a.root()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	code := exitCode(ctx, err)
	if err != nil && !errors.Is(err, errReported) {
		fmt.Fprintf(a.stderr, "%s %v\n", a.red("disdel:"), err)
		if code == ExitUsage {
			fmt.Fprintln(a.stderr, "Run 'disdel --help', or --help after a command, for usage.")
		}
	}
	return code
}

// Root returns the command tree, for generating documentation.
func Root() *cobra.Command {
	return (&app{stdout: io.Discard, stderr: io.Discard, getenv: func(string) string { return "" }}).root()
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:           "disdel",
		Short:         "Distributed deep learning on serverless platforms",
		Long:          longHelp,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return fmt.Errorf("unknown command %q", args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usagef("%s: %w", cmd.CommandPath(), err)
	})
	root.AddCommand(a.trainCommand(), a.inferCommand(), a.planCommand(), a.modelsCommand(), a.jobsCommand(),
		a.datasetsCommand(), a.platformCommand(), a.versionCommand())
	root.DisableAutoGenTag = true
	return root
}

// errReported marks an error that the user has seen already.
var errReported = errors.New("reported")

// errUsage marks a command line that makes no sense.
var errUsage = errors.New("wrong usage")

type usageError struct{ err error }

func (e usageError) Error() string   { return e.err.Error() }
func (e usageError) Unwrap() []error { return []error{e.err, errUsage} }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

func exitCode(ctx context.Context, err error) int {
	switch {
	case err == nil:
		return ExitOK
	case ctx.Err() != nil:
		return ExitInterrupted
	case isUsage(err):
		return ExitUsage
	default:
		return ExitFailed
	}
}

func isUsage(err error) bool {
	for _, target := range []error{errUsage, job.ErrSpec, data.ErrUnknown, nn.ErrUnknownModel, plan.ErrModel, control.ErrNoModel, control.ErrNoJob} {
		if errors.Is(err, target) {
			return true
		}
	}
	// Cobra's own complaints about arguments and commands have no type.
	for _, start := range []string{"unknown command", "accepts ", "requires at least"} {
		if strings.HasPrefix(err.Error(), start) {
			return true
		}
	}
	return false
}

func (a *app) red(text string) string {
	if !a.terminal || a.getenv("NO_COLOR") != "" || a.getenv("TERM") == "dumb" {
		return text
	}
	return "\x1b[31m" + text + "\x1b[0m"
}
