//! `drover completions`, `drover man` and `drover version`: the program about itself.

use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;

use super::args::command;
use super::{Failure, INVALID};

pub fn completions(shell: Shell) -> Result<String, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command(), "drover", &mut script);
    utf8(script)
}

pub fn version(json: bool) -> String {
    let version = env!("CARGO_PKG_VERSION");
    match json {
        true => format!("{}\n", serde_json::json!({ "version": version })),
        false => format!("drover {version}\n"),
    }
}

/// One page: the program, then each subcommand as a section of its own.
pub fn man() -> Result<String, Failure> {
    let mut program = command();
    program.build();
    let man = Man::new(program.clone());
    let mut page = rendered(|page| {
        man.render_title(page)?;
        man.render_name_section(page)?;
        man.render_synopsis_section(page)?;
        man.render_description_section(page)?;
        man.render_options_section(page)
    })?;
    page += &verbatim(&program, ".SH");
    sections(&program, "drover", &mut page)?;
    Ok(page)
}

fn sections(parent: &Command, path: &str, page: &mut String) -> Result<(), Failure> {
    for command in parent.get_subcommands().filter(|command| command.get_name() != "help") {
        let path = format!("{path} {}", command.get_name());
        // What every command takes stands in the program's own section.
        let own = command.clone().mut_args(|arg| {
            let common = arg.is_global_set() || arg.get_id() == "help";
            arg.hide(common)
        });
        let man = Man::new(own.clone());
        let section = rendered(|page| {
            man.render_synopsis_section(page)?;
            man.render_description_section(page)?;
            let has_options = own.get_arguments().any(|arg| !arg.is_hide_set());
            if has_options { man.render_options_section(page) } else { Ok(()) }
        })?;
        // A subcommand's headings are one level below its own.
        let section = section.replace("\n.SH ", "\n.SS ").replacen(".SH ", ".SS ", 1);
        *page += &format!(".SH \"{path}\"\n{section}{}", verbatim(&own, ".SS"));
        sections(command, &path, page)?;
    }
    Ok(())
}

/// The text after the help (examples, exit status) line by line; a line that ends in a colon is a heading.
fn verbatim(command: &Command, heading: &str) -> String {
    let text = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let mut page = String::new();
    for line in text.lines() {
        match line.strip_suffix(':') {
            Some(title) => page += &format!("{heading} {}\n.nf\n", title.to_uppercase()),
            None if line.is_empty() => page += ".fi\n",
            // `\&` keeps a line from being taken for a request.
            None => page += &format!("\\&{}\n", line.replace('\\', "\\e").replace('-', "\\-")),
        }
    }
    if !page.is_empty() {
        page += ".fi\n";
    }
    page
}

fn rendered(render: impl FnOnce(&mut Vec<u8>) -> std::io::Result<()>) -> Result<String, Failure> {
    let mut page = Vec::new();
    render(&mut page).map_err(|error| Failure::refused(format!("cannot write the page: {error}")))?;
    utf8(page)
}

fn utf8(text: Vec<u8>) -> Result<String, Failure> {
    String::from_utf8(text).map_err(|error| Failure {
        exit: INVALID,
        message: format!("the text is not UTF-8: {error}"),
        answer: None,
    })
}
