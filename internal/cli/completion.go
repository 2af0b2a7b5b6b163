package cli

import (
	"fmt"
	"strings"
)

// This file makes the completion scripts of shells from the tables that --help
// is made from.

var completionVerb = verb{
	name: "completion", group: groupAbout, args: "bash|zsh|fish", own: true,
	summary: "print a script that completes command lines in a shell",
	about: "The script completes commands, options and the values of options, for diskimg and\n" +
		"for qemu-img. It is loaded from the start file of the shell or put where the shell\n" +
		"looks for such scripts.",
	example: "completion bash > /etc/bash_completion.d/diskimg\ncompletion zsh > /usr/local/share/zsh/site-functions/_diskimg\n" +
		"completion fish > ~/.config/fish/completions/diskimg.fish",
	new: func() command { return completionCommand{} },
}

type completionCommand struct{}

func (completionCommand) options() []option { return nil }

func (completionCommand) run(sh *shell, args []string) error {
	if len(args) != 1 {
		return usageError("Expecting the name of a shell: bash, zsh or fish")
	}
	scripts := map[string]func() string{"bash": bashCompletion, "zsh": zshCompletion, "fish": fishCompletion}
	script := scripts[args[0]]
	if script == nil {
		return usageError("No completion for the shell '" + args[0] + "': there is one for bash, zsh and fish")
	}
	sh.printf("%s", script())
	return nil
}

// completed are the programs whose command lines are completed.
const completed = "diskimg qemu-img"

// choices returns what the argument of an option can be: words to choose from
// or, if isFile, a file. Both are empty if anything can be.
func (o *option) choices() (words []string, isFile bool) {
	switch o.arg {
	case "FMT":
		return formatNames(), false
	case "CACHE":
		return []string{"none", "writeback", "writethrough", "directsync", "unsafe"}, false
	case "FILE":
		return nil, true
	}
	if strings.Contains(o.arg, "|") {
		return strings.Split(o.arg, "|"), false
	}
	return nil, false
}

// spellings returns each way to write an option: -f --format.
func (o *option) spellings() []string {
	var list []string
	if o.short != 0 {
		list = append(list, "-"+string(o.short))
	}
	if o.long != "" {
		list = append(list, "--"+o.long)
	}
	return list
}

// allOptions returns the options of a verb and those that each verb has.
func (v *verb) allOptions() []option { return append(v.new().options(), helpOption) }

func verbNames() []string {
	var names []string
	for _, v := range verbs() {
		names = append(names, v.name)
	}
	return names
}

func bashCompletion() string {
	var b strings.Builder
	b.WriteString(`# bash completion of ` + completed + `
_diskimg() {
  local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} verb= options= i
  # bash makes words of their own of the = in --output=json.
  if [[ $cur == = ]]; then cur=; elif [[ $prev == = ]]; then prev=${COMP_WORDS[COMP_CWORD-2]}; fi
  for ((i = 1; i < COMP_CWORD; i++)); do
    case ${COMP_WORDS[i]} in
      --trace) if [[ ${COMP_WORDS[i+1]} != = ]]; then ((i++)); fi;;
      -T|=) ((i++));;
      -*) ;;
      *) verb=${COMP_WORDS[i]}; break;;
    esac
  done
  COMPREPLY=()
  case $verb in
`)
	fmt.Fprintf(&b, "    '') COMPREPLY=($(compgen -W '%s --help --version' -- \"$cur\")); return;;\n", strings.Join(verbNames(), " "))
	for _, v := range verbs() {
		v.bash(&b)
	}
	b.WriteString(`  esac
  if [[ $cur == -* ]]; then
    COMPREPLY=($(compgen -W "$options" -- "$cur"))
  else
    compopt -o default
  fi
}
complete -F _diskimg ` + completed + "\n")
	return b.String()
}

// bash writes the case of a verb.
func (v *verb) bash(b *strings.Builder) {
	var all []string
	fmt.Fprintf(b, "    %s)\n      case $prev in\n", v.name)
	for _, o := range v.allOptions() {
		all = append(all, o.spellings()...)
		words, isFile := o.choices()
		switch pattern := strings.Join(o.spellings(), "|"); {
		case !o.takesArg() || isFile:
		case words == nil:
			fmt.Fprintf(b, "        %s) return;;\n", pattern)
		default:
			fmt.Fprintf(b, "        %s) COMPREPLY=($(compgen -W '%s' -- \"$cur\")); return;;\n", pattern, strings.Join(words, " "))
		}
	}
	b.WriteString("      esac\n")
	if words, isChoice := v.argChoices(); isChoice {
		all = append(all, words...)
		fmt.Fprintf(b, "      COMPREPLY=($(compgen -W '%s' -- \"$cur\")); return;;\n", strings.Join(all, " "))
		return
	}
	fmt.Fprintf(b, "      options='%s';;\n", strings.Join(all, " "))
}

// argChoices returns the words that the argument of a verb is one of, if it is
// no file.
func (v *verb) argChoices() (words []string, ok bool) {
	switch {
	case v.name == manVerb.name:
		return verbNames(), true
	case strings.Contains(v.args, "|"):
		return strings.Split(v.args, "|"), true
	}
	return nil, false
}

func zshCompletion() string {
	var b strings.Builder
	b.WriteString("#compdef " + completed + `
_diskimg() {
  local context state line
  _arguments -C '1: :->verb' '*:: :->rest'
  case $state in
    verb)
      local -a verbs=(
`)
	for _, v := range verbs() {
		fmt.Fprintf(&b, "        %s\n", quote(v.name+":"+v.summary))
	}
	b.WriteString("      )\n      _describe command verbs;;\n    rest)\n      case $words[1] in\n")
	for _, v := range verbs() {
		v.zsh(&b)
	}
	b.WriteString(`      esac;;
  esac
}
# The file is the function's body if it was found in $fpath, or else is sourced.
if [[ $funcstack[1] == _diskimg ]]; then _diskimg "$@"; else compdef _diskimg ` + completed + `; fi
`)
	return b.String()
}

// zsh writes the case of a verb.
func (v *verb) zsh(b *strings.Builder) {
	fmt.Fprintf(b, "        %s) _arguments -s", v.name)
	for _, o := range v.allOptions() {
		for _, spelling := range o.spellings() {
			fmt.Fprintf(b, " \\\n          %s", quote("*"+spelling+o.zshArg(spelling)))
		}
	}
	if words, ok := v.argChoices(); ok {
		fmt.Fprintf(b, " \\\n          '1:argument:(%s)';;\n", strings.Join(words, " "))
		return
	}
	b.WriteString(" \\\n          '*:file:_files';;\n")
}

// zshArg returns how _arguments is told of an option's text and argument.
func (o *option) zshArg(spelling string) string {
	help, _, _ := strings.Cut(o.help, "\n")
	help = "[" + strings.NewReplacer("[", "(", "]", ")", ":", " ").Replace(help) + "]"
	if !o.takesArg() {
		return help
	}
	mark := "+"
	if strings.HasPrefix(spelling, "--") {
		mark = "="
	}
	words, isFile := o.choices()
	action := ""
	switch {
	case isFile:
		action = "_files"
	case words != nil:
		action = "(" + strings.Join(words, " ") + ")"
	}
	return mark + help + ":" + o.arg + ":" + action
}

func fishCompletion() string {
	var b strings.Builder
	for program := range strings.FieldsSeq(completed) {
		for _, v := range verbs() {
			if program != qemuImg || !v.own {
				v.fish(&b, program)
			}
		}
	}
	return b.String()
}

// fish writes a line for a verb and for each of its options.
func (v *verb) fish(b *strings.Builder, program string) {
	fmt.Fprintf(b, "complete -c %s -n __fish_use_subcommand -f -a %s -d %s\n", program, v.name, quote(v.summary))
	start := fmt.Sprintf("complete -c %s -n '__fish_seen_subcommand_from %s'", program, v.name)
	if words, ok := v.argChoices(); ok {
		fmt.Fprintf(b, "%s -f -a %s\n", start, quote(strings.Join(words, " ")))
	}
	for _, o := range v.allOptions() {
		b.WriteString(start)
		if o.short != 0 {
			fmt.Fprintf(b, " -s %c", o.short)
		}
		if o.long != "" {
			fmt.Fprintf(b, " -l %s", o.long)
		}
		help, _, _ := strings.Cut(o.help, "\n")
		fmt.Fprintf(b, "%s -d %s\n", o.fishArg(), quote(help))
	}
}

func (o *option) fishArg() string {
	words, isFile := o.choices()
	switch {
	case !o.takesArg():
		return ""
	case isFile:
		return " -r -F"
	case words == nil:
		return " -x"
	}
	return " -x -a " + quote(strings.Join(words, " "))
}

// quote makes s one word of a shell.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
