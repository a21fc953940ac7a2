//! The reference of all settings, written from their declarations (docs/configuration.md).

use super::setting::SettingDef;
use super::settings::SECTIONS;

const HEAD: &str = "\
# Configuration

<!-- Written by `recordkeeper reference`; change the declarations in src/config/settings instead. -->

One YAML file, named by `--config FILE` or `RECORDKEEPER_CONFIG`. Every setting also has a variable and can be given by
`--set section.name=value`. A flag wins over a variable, a variable over the file, the file over the default; an empty
variable counts as not set. `recordkeeper check` prints what applies and which source won.

An unknown name (of a setting, or of a variable that begins with `RECORDKEEPER_`), a name given twice, a value without its
unit, settings of which one leaves another without effect: any of these is an error with file and line, and nothing starts
(exit code 2). All are reported at once.

Secrets are taken from variables or from files of their own (`..._file`), never from this file or a flag, and are never
shown. AWS credentials are the AWS SDK's own matter.
";

/// The whole page, Markdown.
pub fn reference() -> String {
    let mut page = HEAD.to_owned();
    for section in SECTIONS {
        let title = if section.name.is_empty() { "Top level".to_owned() } else { format!("`{}`", section.name) };
        page.push_str(&format!("\n## {title}\n\n{}\n\n", section.about));
        page.push_str("| setting | variable | value | default | what and why |\n| --- | --- | --- | --- | --- |\n");
        for def in section.settings {
            page.push_str(&row(def));
        }
    }
    page
}

fn row(def: &SettingDef) -> String {
    let mut variables = format!("`{}`", def.variable());
    for foreign in def.foreign_variables {
        variables.push_str(&format!(", else `{foreign}`"));
    }
    let mut value = def.kind.to_owned();
    if let Some((low, high)) = def.bounds {
        value.push_str(&format!("; {low} to {high}"));
    }
    let default = match def.default {
        Some("") => "none".to_owned(),
        Some(default) => format!("`{default}`"),
        None if def.optional => "not set".to_owned(),
        None => "**required**".to_owned(),
    };
    let cells = [format!("`{}`", def.name), variables, value, default, def.reason.to_owned()];
    format!("| {} |\n", cells.map(|cell| cell.replace('|', "\\|")).join(" | "))
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_committed_reference_is_what_the_declarations_say() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/configuration.md");
        let committed = std::fs::read_to_string(path).unwrap();
        assert!(committed == super::reference(), "write it anew: recordkeeper reference > docs/configuration.md");
    }
}
