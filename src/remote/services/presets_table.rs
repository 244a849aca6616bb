//! Compares the table of servers in `docs/servers.md` with the presets. After an intended change, run the test with
//! `UPDATE_DOCS=1` and review the difference.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use super::Server;
use super::presets::{Control, Edit, Images, Marks, Parameters, Preset, SizeForm};

const START: &str = "<!-- start of the table of servers -->\n";
const END: &str = "<!-- end of the table of servers -->\n";
const CONTROLS: [&str; 5] = ["seed", "steps", "guidance", "negative_prompt", "strength"];

fn place(control: Control, name: &str) -> String {
    match control {
        Control::SchemaField if name == "steps" => "`num_inference_steps`".into(),
        Control::SchemaField => "`guidance_scale`".into(),
        Control::Field(field) => format!("`{field}`"),
        Control::ExtraArgs(path) => format!("in the prompt: `{}`", path.join(".")),
        Control::AfterBar => "in the prompt, after a vertical bar".into(),
        Control::Refused(_) => "refused".into(),
    }
}

/// Returns the places of the controls in all requests that a preset sends, without repetition.
fn controls(preset: &Preset) -> Vec<String> {
    let edit = preset.edit.as_ref().ok().map(|edit| &edit.parameters);
    let masked = preset.masked_edit.as_ref().ok().map(|(edit, _)| &edit.parameters);
    let of = |parameters: &Parameters, name| place(parameters.control(name).unwrap(), name);
    let row = |name| {
        let generation = (name != "strength").then(|| of(&preset.generation, name));
        let places = [generation, edit.map(|edit| of(edit, name)), masked.map(|masked| of(masked, name))];
        let mut words: Vec<String> = Vec::new();
        let mut last = None;
        for (place, mode) in places.into_iter().zip(["", "edit: ", "with a mask: "]) {
            if place.is_some() && place != last {
                let mode = if words.is_empty() { "" } else { mode };
                words.push(format!("{mode}{}", place.as_deref().unwrap_or_default()));
                last = place;
            }
        }
        if words.is_empty() { "refused".to_owned() } else { words.join("; ") }
    };
    CONTROLS.into_iter().map(row).collect()
}

fn images(edit: &Edit) -> String {
    match edit.images {
        Images::Form(field) if field.name(1) == field.name(2) => format!("`{}`", field.name(1)),
        Images::Form(field) => format!("`{}`, `{}`", field.name(1), field.name(2)),
        Images::Json(field) => format!("`{field}` in the JSON of a generation"),
    }
}

fn table() -> String {
    let mut lines = vec![
        "| server | `.server(..)` | seed | steps | guidance | negative prompt | strength | images | mask | \
         `response_format` | size |"
            .to_owned(),
        format!("|{}", "---|".repeat(11)),
    ];
    for preset in Server::ALL.map(Server::preset) {
        let mask = match &preset.masked_edit {
            Err(_) => "refused".to_owned(),
            Ok((edit, mask)) => {
                let marks = if mask.marks == Marks::White { "white" } else { "transparent" };
                let path = edit.path.join("/");
                let place = if path == "images/edits" { String::new() } else { format!(" of `{path}`") };
                format!("`{}`{place}, {marks}", mask.field)
            }
        };
        let formats = [preset.response_format.url, preset.response_format.b64_json].into_iter().flatten();
        let formats: Vec<_> = formats.map(|format| format!("`{format}`")).collect();
        let size = match preset.size {
            SizeForm::Any => "pixels or ratio",
            SizeForm::Pixels => "pixels",
            SizeForm::WidthAndHeight => "`width`, `height`",
        };
        let mut cells = vec![preset.name.to_owned(), format!("`{}`", preset.id)];
        cells.extend(controls(preset));
        cells.push(preset.edit.as_ref().map_or("refused".to_owned(), images));
        cells.push(mask);
        cells.push(if formats.is_empty() { "not sent".to_owned() } else { formats.join(", ") });
        cells.push(size.to_owned());
        lines.push(format!("| {} |", cells.join(" | ")));
    }
    lines.join("\n") + "\n"
}

#[test]
fn the_documentation_has_the_table_of_servers() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/servers.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once(START).unwrap();
    let (documented, after) = rest.split_once(END).unwrap();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, format!("{before}{START}{}{END}{after}", table())).unwrap();
        return;
    }
    assert_eq!(documented, table());
}
