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
    let mut top = command();
    top.build();
    let mut page = Vec::new();
    render(Man::new(top.clone()), &mut page, true)?;
    let mut page = utf8(page)?;
    sections(&top, "drover", &mut page)?;
    Ok(page)
}

fn sections(parent: &Command, path: &str, page: &mut String) -> Result<(), Failure> {
    for command in parent.get_subcommands().filter(|command| command.get_name() != "help") {
        let path = format!("{path} {}", command.get_name());
        let mut section = Vec::new();
        render(Man::new(command.clone()), &mut section, false)?;
        // A subcommand's headings are one level below its own.
        let section = utf8(section)?.replace("\n.SH ", "\n.SS ").replacen(".SH ", ".SS ", 1);
        *page += &format!(".SH \"{}\"\n{section}", path.to_uppercase().replacen("DROVER", "drover", 1));
        sections(command, &path, page)?;
    }
    Ok(())
}

/// The parts of a page that a program or a subcommand has.
fn render(man: Man, page: &mut Vec<u8>, is_program: bool) -> Result<(), Failure> {
    let rendered = match is_program {
        true => man.render(page),
        false => man
            .render_synopsis_section(page)
            .and_then(|()| man.render_description_section(page))
            .and_then(|()| man.render_options_section(page))
            .and_then(|()| man.render_extra_section(page)),
    };
    rendered.map_err(|error| Failure::refused(format!("cannot write the page: {error}")))
}

fn utf8(text: Vec<u8>) -> Result<String, Failure> {
    String::from_utf8(text).map_err(|error| Failure {
        exit: INVALID,
        message: format!("the text is not UTF-8: {error}"),
        answer: None,
    })
}
