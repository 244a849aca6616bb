//! The command line, parsed.

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use lexopt::Parser;
use lexopt::prelude::{Long, Short, Value as Positional, ValueExt as _};
use lumenfall::backend::Options;
use lumenfall::local::{Device, GpuChoice};
use lumenfall::stable_diffusion_3_5_medium::SCHEMA;
use lumenfall::{Error, ErrorKind, SkipLayerGuidance};
use serde_json::Value;

use crate::help;

/// What the program is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    Generate,
    Edit,
    Repeat,
    Estimate,
    Models,
    Devices,
}

/// Where the images are generated.
#[derive(Debug, Default)]
pub(crate) enum Place {
    /// On this computer, with the demonstration model.
    #[default]
    Demo,
    /// On a device of this computer, with the model in a folder.
    Folder(PathBuf, Device),
    /// On a server.
    Remote,
}

/// The arguments of one call of the program.
#[derive(Debug)]
pub(crate) struct Arguments {
    pub(crate) command: Command,
    /// The prompt of `generate` and `estimate`, the source images of `edit`, or the file of `repeat`.
    pub(crate) positionals: Vec<OsString>,
    pub(crate) place: Place,
    pub(crate) base_url: Option<String>,
    pub(crate) without_key: bool,
    pub(crate) options: Options,
    pub(crate) timeout: Option<Duration>,
    /// The prompt of `edit`.
    pub(crate) prompt: Option<String>,
    pub(crate) mask: Option<PathBuf>,
    /// The source image of an edit that `repeat` computes again.
    pub(crate) source: Option<PathBuf>,
    /// The LoRAs of the local model: their names and files.
    pub(crate) loras: Vec<(String, PathBuf)>,
    /// The folder with encoded prompts.
    pub(crate) prompt_cache: Option<PathBuf>,
    pub(crate) output: Option<PathBuf>,
}

/// The meaning of a command line.
#[derive(Debug)]
pub(crate) enum Parsed {
    Run(Box<Arguments>),
    /// Print this text: the help or the version.
    Text(&'static str),
}

impl Arguments {
    /// Parses the command line.
    ///
    /// The values of request parameters are checked by the library when it sends the request.
    pub(crate) fn parse(mut parser: Parser) -> Result<Parsed, Error> {
        let command = match parser.next().map_err(usage)? {
            Some(Short('h') | Long("help")) => return Ok(Parsed::Text(help::TEXT)),
            Some(Short('V') | Long("version")) => return Ok(Parsed::Text(help::VERSION)),
            None => return Err(usage("the command is missing")),
            Some(Positional(name)) => match name.to_str() {
                Some("generate") => Command::Generate,
                Some("edit") => Command::Edit,
                Some("repeat") => Command::Repeat,
                Some("estimate") => Command::Estimate,
                Some("models") => Command::Models,
                Some("devices") => Command::Devices,
                Some("help") => return Ok(Parsed::Text(help::TEXT)),
                _ => return Err(usage(format!("unknown command {name:?}"))),
            },
            Some(_) => return Err(usage("the first argument must be a command")),
        };
        let mut arguments = Self {
            command,
            positionals: Vec::new(),
            place: Place::default(),
            base_url: None,
            without_key: false,
            options: Options::default(),
            timeout: None,
            prompt: None,
            mask: None,
            source: None,
            loras: Vec::new(),
            prompt_cache: None,
            output: None,
        };
        let (mut folder, mut device, mut remote) = (None, None, false);
        while let Some(argument) = parser.next().map_err(usage)? {
            match argument {
                Short('h') | Long("help") => return Ok(Parsed::Text(help::TEXT)),
                // `main` looks for it, because it also applies to errors in the arguments.
                Long("json") => {}
                Long("device") if command.saves() => device = Some(parse_device(&text(&mut parser)?)),
                Long("prompt-cache") if command.saves() => arguments.prompt_cache = Some(path(&mut parser)?),
                Long("model") => folder = Some(path(&mut parser)?),
                Long("remote") => remote = true,
                Long("base-url") => (arguments.base_url, remote) = (Some(text(&mut parser)?), true),
                Long("without-key") => arguments.without_key = true,
                Short('o') | Long("output") if command.saves() => arguments.output = Some(path(&mut parser)?),
                Long("prompt") if command == Command::Edit => arguments.prompt = Some(text(&mut parser)?),
                Long("mask") if matches!(command, Command::Edit | Command::Repeat) => {
                    arguments.mask = Some(path(&mut parser)?);
                }
                Long("source") if command == Command::Repeat => arguments.source = Some(path(&mut parser)?),
                Long("lora") if command.saves() => {
                    let (file, strength) = lora(&mut parser)?;
                    let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
                    if let Some(strength) = strength {
                        arguments.options.local.loras.get_or_insert_default().insert(name.clone(), strength);
                    }
                    arguments.loras.push((name, file));
                }
                Long("timeout") if command.requests() => {
                    let Seconds(timeout) = parse("timeout", "a number of seconds", &mut parser)?;
                    arguments.timeout = Some(timeout);
                }
                Long(name) if command.has_options() => {
                    let name = name.to_owned();
                    if !set_option(&mut arguments.options, &name, &mut parser)? {
                        return Err(unknown_option(&name, command));
                    }
                }
                Long(name) => return Err(unknown_option(name, command)),
                Positional(value) if command.requests() => arguments.positionals.push(value),
                other => return Err(usage(other.unexpected())),
            }
        }
        arguments.place = match (folder, remote) {
            (Some(_), true) => return Err(usage("`--model` and `--remote` cannot be combined")),
            (Some(folder), false) => Place::Folder(folder, device.take().unwrap_or_default()),
            (None, true) => Place::Remote,
            (None, false) => Place::Demo,
        };
        if device.is_some() {
            return Err(usage("`--device` requires `--model`"));
        }
        if !arguments.loras.is_empty() && matches!(arguments.place, Place::Remote) {
            return Err(usage("`--lora` and `--remote` cannot be combined"));
        }
        if arguments.prompt_cache.is_some() && !matches!(arguments.place, Place::Folder(..)) {
            return Err(usage("`--prompt-cache` requires `--model`"));
        }
        Ok(Parsed::Run(Box::new(arguments)))
    }

    /// Whether an interrupted call may have been billed.
    pub(crate) fn may_be_billed(&self) -> bool {
        self.command.saves() && matches!(self.place, Place::Remote)
    }
}

impl Command {
    /// Whether the command sends a request.
    fn requests(self) -> bool {
        !matches!(self, Self::Models | Self::Devices)
    }

    /// Whether the command has the options of a request.
    fn has_options(self) -> bool {
        self.requests() && self != Self::Repeat
    }

    /// Whether the command writes images.
    pub(crate) fn saves(self) -> bool {
        matches!(self, Self::Generate | Self::Edit | Self::Repeat)
    }
}

fn parse_device(text: &str) -> Device {
    match text {
        "auto" => Device::Auto,
        "cpu" => Device::Cpu,
        _ => Device::Gpu(text.parse().map_or_else(|_| GpuChoice::Name(text.into()), GpuChoice::Index)),
    }
}

fn unknown_option(name: &str, command: Command) -> Error {
    let command = format!("{command:?}").to_lowercase();
    usage(format!("`lumenfall {command}` has no option `--{name}`"))
}

/// Sets the request parameter `name`. Returns `false` if there is no parameter of this name.
fn set_option(options: &mut Options, name: &str, parser: &mut Parser) -> Result<bool, Error> {
    let sampling = &mut options.sampling;
    match name {
        "size" => options.size = Some(text(parser)?.parse()?),
        "aspect-ratio" => options.aspect_ratio = Some(text(parser)?.parse()?),
        "resolution" => options.resolution = Some(text(parser)?.parse()?),
        "output-format" => {
            let format = Value::from(text(parser)?);
            SCHEMA.check_value("output_format", &format)?;
            options.output_format = serde_json::from_value(format).ok();
        }
        "output-compression" => options.output_compression = whole_number(name, parser)?,
        "n" => options.n = whole_number(name, parser)?,
        "user" => options.user = Some(text(parser)?),
        "provider" => options.provider = Some(text(parser)?),
        "seed" => sampling.seed = whole_number(name, parser)?,
        "steps" => sampling.steps = whole_number(name, parser)?,
        "guidance" => sampling.guidance = decimal(name, parser)?,
        "negative-prompt" => sampling.negative_prompt = Some(text(parser)?),
        "strength" => sampling.strength = decimal(name, parser)?,
        "skip-layer-guidance" => sampling.skip_layer_guidance = Some(SkipLayerGuidance::default()),
        "local" => {
            let (name, value) = pair(name, parser)?;
            options.local.set(&name, value)?;
        }
        "extra" => {
            let (name, value) = pair(name, parser)?;
            options.extra.insert(name, value);
        }
        _ => return Ok(false),
    }
    Ok(true)
}

/// Parses the value of the option `name` as a name and a value in JSON or text.
fn pair(name: &str, parser: &mut Parser) -> Result<(String, Value), Error> {
    let pair = text(parser)?;
    let Some((key, value)) = pair.split_once('=') else {
        return Err(usage(format!("--{name} {pair:?} is malformed; write it as NAME=VALUE")));
    };
    Ok((key.to_owned(), serde_json::from_str(value).unwrap_or_else(|_| Value::from(value))))
}

/// Parses the file of a LoRA and its strength, as in `ink.safetensors=0.7`.
fn lora(parser: &mut Parser) -> Result<(PathBuf, Option<f32>), Error> {
    let file = path(parser)?;
    let strength = |text: &str| {
        let (file, strength) = text.rsplit_once('=')?;
        Some((PathBuf::from(file), Some(strength.parse().ok()?)))
    };
    Ok(file.to_str().and_then(strength).unwrap_or((file, None)))
}

fn text(parser: &mut Parser) -> Result<String, Error> {
    parser.value().and_then(|value| value.string()).map_err(usage)
}

/// Parses the value of the option `name`. `expected` describes the values that can be parsed.
fn parse<T: FromStr>(name: &str, expected: &str, parser: &mut Parser) -> Result<T, Error> {
    let text = text(parser)?;
    text.parse().map_err(|_| {
        usage(format!("`--{name}` is {text:?}; expected {expected}")).with_parameter(name.replace('-', "_"))
    })
}

fn whole_number<T: FromStr>(name: &str, parser: &mut Parser) -> Result<Option<T>, Error> {
    parse(name, "a whole number of 0 or more", parser).map(Some)
}

fn decimal(name: &str, parser: &mut Parser) -> Result<Option<f32>, Error> {
    parse(name, "a number", parser).map(Some)
}

struct Seconds(Duration);

impl FromStr for Seconds {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let seconds = text.parse().map_err(|_| ())?;
        Duration::try_from_secs_f64(seconds).map(Self).map_err(|_| ())
    }
}

fn path(parser: &mut Parser) -> Result<PathBuf, Error> {
    parser.value().map(expand_home).map_err(usage)
}

/// Expands `~` at the start of a path, which the shell leaves alone in `--output=~/image.png`.
pub(crate) fn expand_home(path: OsString) -> PathBuf {
    let path = PathBuf::from(path);
    match (path.strip_prefix("~"), env::home_dir()) {
        (Ok(rest), Some(home)) => home.join(rest),
        _ => path,
    }
}

/// An error in the arguments.
pub(crate) fn usage(message: impl ToString) -> Error {
    let message = format!("{}. Run `lumenfall --help` to see the commands and options.", message.to_string());
    Error::new(ErrorKind::InvalidRequest, message)
}
