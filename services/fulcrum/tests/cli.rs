//! Every option is described, can be set in the environment, and stays what it is: the list is kept, so that a change shows.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use clap::{Arg, Command, CommandFactory as _, Parser as _};
use fulcrum::cli::Cli;

/// All commands with the words that call them.
fn commands() -> Vec<(String, Command)> {
    fn descend(words: &str, command: &Command, all: &mut Vec<(String, Command)>) {
        all.push((words.to_owned(), command.clone()));
        for inner in command.get_subcommands() {
            descend(&format!("{words} {}", inner.get_name()), inner, all);
        }
    }
    let mut all = Vec::new();
    descend("fulcrum", &Cli::command(), &mut all);
    all
}

fn options(command: &Command) -> Vec<&Arg> {
    let own = |argument: &&Arg| !["help", "version"].contains(&argument.get_id().as_str());
    command.get_arguments().filter(own).collect()
}

#[test]
fn the_definitions_hold_together() {
    Cli::command().debug_assert();
}

#[test]
fn every_command_and_every_option_is_described() {
    for (words, command) in commands() {
        assert!(command.get_about().is_some(), "{words} is not described");
        for option in options(&command) {
            let described = option.get_help().is_some_and(|help| help.to_string().len() > 10);
            assert!(described, "{words} {} is not described", option.get_id());
        }
    }
}

#[test]
fn every_option_has_an_environment_variable_of_its_own() {
    for (words, command) in commands() {
        let mut names = BTreeSet::new();
        for option in options(&command).into_iter().filter(|option| !option.is_hide_set()) {
            let name = option
                .get_env()
                .and_then(|name| name.to_str())
                .unwrap_or_default()
                .to_owned();
            assert!(name.starts_with("FULCRUM_"), "{words} {}: {name:?}", option.get_id());
            assert!(names.insert(name.clone()), "{words}: {name} is there twice");
        }
    }
}

#[test]
fn one_name_has_one_default() {
    let mut known = BTreeMap::new();
    for (words, command) in commands() {
        for option in options(&command) {
            let Some(name) = option.get_env() else { continue };
            let default = option.get_default_values().to_owned();
            let (first, there) = known
                .entry(name.to_owned())
                .or_insert_with(|| (words.clone(), default.clone()));
            assert_eq!(*there, default, "{} in {first} and in {words}", name.display());
        }
    }
}

#[test]
fn a_poller_runs_without_a_word() {
    for arguments in [
        "poller",
        "poller --feed replay",
        "poller run --feed replay",
        "poller replay x --loop --speed 10",
    ] {
        let words = std::iter::once("fulcrum").chain(arguments.split(' '));
        assert!(Cli::try_parse_from(words).is_ok(), "{arguments}");
    }
    assert!(Cli::try_parse_from(["fulcrum", "poller", "--feed", "replay", "record", "x"]).is_err());
}

#[test]
fn the_list_of_options() {
    let mut list = String::new();
    for (words, command) in commands() {
        writeln!(list, "{words}").unwrap();
        for option in options(&command).into_iter().filter(|option| !option.is_hide_set()) {
            let name = option
                .get_long()
                .map_or_else(|| option.get_id().as_str().to_uppercase(), |long| format!("--{long}"));
            let environment = option.get_env().unwrap_or_default().display();
            let default: Vec<_> = option
                .get_default_values()
                .iter()
                .map(|it| it.display().to_string())
                .collect();
            writeln!(
                list,
                "{}",
                format!("    {name:24} {environment:28} {}", default.join(",")).trim_end()
            )
            .unwrap();
        }
    }
    insta::assert_snapshot!(list);
}
