// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"disdel/internal/control"
	"disdel/internal/data"
	"disdel/internal/job"
	"disdel/internal/nn"
	"disdel/internal/plan"
	"disdel/internal/report"
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
	// lookupenv tells empty variables from missing ones; nil: none is empty.
	lookupenv func(string) (string, bool)
	// program is the path of this program, beside which the worker is.
	program func() (string, error)
	// started says that the command line made sense so far and a command runs.
	started bool
	// terminal says that stderr is one: progress bars and colour make sense.
	terminal bool
	// columns is the width of the terminal that stdout is, 0 if it is none.
	columns int
}

// Run carries out one command line, given without the program's name, and
// returns the process's exit code. A process that a platform started as a
// worker becomes one, whatever its arguments.
func Run(ctx context.Context, args []string, stdout, stderr *os.File) int {
	if worker.Wanted() {
		return worker.Main(ctx, nil, stderr)
	}
	a := &app{
		stdout: stdout, stderr: stderr, getenv: os.Getenv, lookupenv: os.LookupEnv, program: os.Executable,
		terminal: term.IsTerminal(int(stderr.Fd())),
	}
	if columns, _, err := term.GetSize(int(stdout.Fd())); err == nil {
		a.columns = columns
	}
	return a.run(ctx, args)
}

func (a *app) run(ctx context.Context, args []string) int {
	root := a.root()
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	if err != nil && !a.started {
		err = usageError{err} // also what Cobra says of commands and arguments
	}
	code := exitCode(ctx, err)
	if err != nil && !errors.Is(err, errReported) {
		fmt.Fprintf(a.stderr, "%s %s\n", a.red("disdel:"), printable(err.Error()))
		if code == ExitUsage {
			fmt.Fprintf(a.stderr, "Run '%s --help' for usage.\n", cmd.CommandPath())
		}
	}
	return code
}

// page is stdout for tables.
func (a *app) page() io.Writer { return report.Page{Writer: a.stdout, Columns: a.columns} }

// warn tells of something that does not keep a command from its end.
func (a *app) warn(err error) {
	fmt.Fprintf(a.stderr, "disdel: %s\n", printable(err.Error()))
}

// printable makes one line of what came from files or from other programs, and
// keeps it from moving the cursor about or changing colours.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return unicode.ReplacementChar
		}
		return r
	}, strings.ReplaceAll(text, "\n", "; "))
}

// Root returns the command tree, for generating documentation.
func Root() *cobra.Command {
	return (&app{stdout: io.Discard, stderr: io.Discard}).root()
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
		PersistentPreRun: func(*cobra.Command, []string) { a.started = true },
		RunE:             func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return fmt.Errorf("%s: %w", commandName(cmd), err)
	})
	root.AddCommand(a.trainCommand(), a.inferCommand(), a.planCommand(), a.predictCommand(), a.modelsCommand(), a.jobsCommand(), a.resumeCommand(),
		a.datasetsCommand(), a.platformCommand(), a.imageCommand(), a.benchCommand(), a.versionCommand(), a.reapCommand())
	root.DisableAutoGenTag = true
	root.Version = worker.Version()
	root.SetVersionTemplate(versionLine())
	return root
}

// commandName is a command's name without the program's.
func commandName(cmd *cobra.Command) string {
	return strings.TrimPrefix(cmd.CommandPath(), cmd.Root().Name()+" ")
}

// oneDataset wants exactly one argument.
func oneDataset(cmd *cobra.Command, args []string) error {
	return one(cmd, args, "the name of one data set", "there is: "+strings.Join(data.Names(), ", "))
}

// oneJob wants exactly one argument.
func (o *options) oneJob(cmd *cobra.Command, args []string) error {
	return one(cmd, args, "the id of one job", "see: "+o.next("jobs"))
}

func one(cmd *cobra.Command, args []string, want, next string) error {
	if len(args) == 1 {
		return nil
	}
	got := "none is given"
	if len(args) > 1 {
		got = fmt.Sprintf("%d arguments are given (%s)", len(args), strings.Join(args, ", "))
	}
	return fmt.Errorf("%s: want %s, %s; %s", commandName(cmd), want, got, next)
}

// noArguments wants none.
func noArguments(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	what := "argument"
	if cmd.HasSubCommands() {
		what = "command"
	}
	return fmt.Errorf("%s: unknown %s %q", commandName(cmd), what, args[0])
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
	return false
}

func (a *app) red(text string) string {
	if !a.terminal || a.getenv("NO_COLOR") != "" || a.getenv("TERM") == "dumb" {
		return text
	}
	return "\x1b[31m" + text + "\x1b[0m"
}
