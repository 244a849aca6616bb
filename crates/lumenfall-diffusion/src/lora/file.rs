//! A LoRA file and the layers that it changes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};

use super::LoraFile;
use super::adapter::Adapter;
use super::keys::{self, Key, Role};
use super::magnitude::Axis;
use super::scale::Settings;
use super::strengths::Strengths;
use super::targets::{Target, Targets};
use crate::error::{Error, Result};
use crate::weights::layout::{PartKind, Rows};
use crate::weights::{Container, Weights};

/// The number of names in a message.
const NAMES: usize = 3;

/// The tensors of a layer in a file: their keys, by their roles.
type Module<'a> = BTreeMap<Role, &'a str>;

/// Reads the header of a LoRA and returns its changes of each layer. `lora` is the index of the LoRA.
pub(super) fn open(
    file: &LoraFile,
    lora: usize,
    strengths: &Arc<Strengths>,
    targets: &Targets,
) -> Result<Vec<Arc<Adapter>>> {
    let container = Container::open_path(&file.path)?;
    let (settings, modules) = read(&container)?;
    let settings = Arc::new(settings);
    let mut unknown = Vec::new();
    let mut mismatches = Vec::new();
    let mut adapters = Vec::new();
    for (name, module) in &modules {
        let (part, rest) = keys::part(name);
        let Some(targets) = targets.get(part, rest) else {
            unknown.push(*name);
            continue;
        };
        for target in targets {
            let check = ModuleShapes { container: &container, module, target };
            if let Err(reason) = check.check() {
                mismatches.push(format!("`{name}` {reason}"));
                break;
            }
            adapters.push(Arc::new(Adapter {
                lora,
                strengths: Arc::clone(strengths),
                fixed: file.fixed.then_some(file.strength),
                settings: Arc::clone(&settings),
                part,
                layer: target.layer.clone(),
                outputs: target.outputs,
                inputs: target.inputs,
                tensors: check.tensors(),
                rows: target.rows.ranges(target.outputs),
                attached: AtomicBool::new(false),
                change: OnceLock::new(),
            }));
        }
    }
    if !unknown.is_empty() {
        let names = unknown.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>();
        return Err(not_in_model(&file.path, &names, modules.len()));
    }
    if let [first, rest @ ..] = mismatches.as_slice() {
        let others = if rest.is_empty() { String::new() } else { format!(" ({} more layers do not fit)", rest.len()) };
        let reason =
            format!("is a LoRA for another model: {first}{others}; use a LoRA for Stable Diffusion 3.5 Medium");
        return Err(Error::malformed(&file.path, reason));
    }
    Ok(adapters)
}

/// Returns the settings of a file, and the tensors of each layer.
pub(super) fn read(container: &Container) -> Result<(Settings, BTreeMap<&str, Module<'_>>)> {
    Ok((Settings::read(container)?, modules(container)?))
}

/// Returns the error of a LoRA with layers that the model lacks. `total` is the number of its layers.
pub(super) fn not_in_model(path: &Path, names: &[String], total: usize) -> Error {
    let reason = format!(
        "is a LoRA for another model: {} of its {total} layers are not in this one: {}; \
         use a LoRA for Stable Diffusion 3.5 Medium, and a model with the text encoders that the LoRA changes",
        names.len(),
        list(names)
    );
    Error::malformed(path, reason)
}

/// Returns the first names and the number of the others.
fn list(names: &[String]) -> String {
    let shown = names.iter().take(NAMES).map(String::as_str).collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(NAMES) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// Returns the tensors of each layer of a file.
fn modules(container: &Container) -> Result<BTreeMap<&str, Module<'_>>> {
    let error = |reason: String| Error::malformed(container.shard.path(), reason);
    let mut modules: BTreeMap<&str, Module<'_>> = BTreeMap::new();
    let mut unknown = Vec::new();
    let mut unsupported: BTreeSet<&str> = BTreeSet::new();
    let mut unsupported_keys = Vec::new();
    for key in container.tensors.keys() {
        match Key::parse(key) {
            Key::Tensor { module, role } => {
                if let Some(other) = modules.entry(module).or_default().insert(role, key) {
                    let reason =
                        format!("has two tensors of the same kind, `{other}` and `{key}`; use one adapter a file");
                    return Err(error(reason));
                }
            }
            Key::Unsupported(kind) => {
                unsupported.insert(kind);
                unsupported_keys.push(format!("`{key}`"));
            }
            Key::Unknown => unknown.push(format!("`{key}`")),
        }
    }
    if !unsupported.is_empty() {
        let kinds = unsupported.into_iter().collect::<Vec<_>>().join(", ");
        return Err(error(format!(
            "contains {kinds}, which is not supported, in {} tensors: {}; use a LoRA, DoRA or LoKr",
            unsupported_keys.len(),
            list(&unsupported_keys)
        )));
    }
    if !unknown.is_empty() || modules.is_empty() {
        let found = if unknown.is_empty() { "no tensors".into() } else { list(&unknown) };
        return Err(error(format!(
            "has {} tensors that do not belong to a LoRA: {found}; use a LoRA for Stable Diffusion 3.5 Medium",
            unknown.len()
        )));
    }
    Ok(modules)
}

/// The shapes of a layer's tensors in a file.
struct ModuleShapes<'a> {
    container: &'a Container,
    module: &'a Module<'a>,
    target: &'a Target,
}

impl ModuleShapes<'_> {
    fn shape(&self, role: Role) -> Option<&[usize]> {
        self.container.shape(self.module.get(&role)?)
    }

    /// Returns rows and columns of a matrix, which may be a convolution.
    fn matrix(&self, role: Role) -> Option<[usize; 2]> {
        let (rows, rest) = self.shape(role)?.split_first()?;
        Some([*rows, rest.iter().try_fold(1usize, |product, dim| product.checked_mul(*dim))?])
    }

    /// Returns the outputs of the layer in the file, which may be several layers in the model.
    fn outputs(&self) -> usize {
        if matches!(self.target.rows, Rows::Third(_)) { 3 * self.target.outputs } else { self.target.outputs }
    }

    fn check(&self) -> std::result::Result<(), String> {
        let expected = [self.outputs(), self.target.inputs];
        let has = |role| self.module.contains_key(&role);
        if let Some(shape) = self.difference()?
            && shape != expected
        {
            return Err(format!("changes a weight of the shape {shape:?}, but the model's is {expected:?}"));
        }
        if has(Role::UpBias) && !has(Role::Up) {
            return Err("has a bias of a matrix that is missing".into());
        }
        for role in [Role::Bias, Role::UpBias] {
            if let Some(shape) = self.shape(role).filter(|shape| *shape != [self.outputs()]) {
                return Err(format!("has a bias of the shape {shape:?}, but the model's is [{}]", self.outputs()));
            }
        }
        if let Some(shape) = self.shape(Role::Alpha).filter(|shape| shape.iter().product::<usize>() != 1) {
            return Err(format!("has an alpha of the shape {shape:?}, but it must be one number"));
        }
        if let Some(shape) = self.shape(Role::Magnitude) {
            match self.axis() {
                None => {
                    return Err(format!("has a DoRA magnitude of the shape {shape:?} for a weight of {expected:?}"));
                }
                Some(Axis::Columns) if matches!(self.target.rows, Rows::Third(_)) => {
                    return Err(format!(
                        "has a DoRA magnitude of the shape {shape:?}, which is one norm of queries, keys and values; \
                         this is not supported: train with a magnitude for each output"
                    ));
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// Returns the shape of the difference of the weight.
    fn difference(&self) -> std::result::Result<Option<[usize; 2]>, String> {
        let low_rank = self.product(Role::Down, Role::Up, |[rank, inputs], [outputs, up]| {
            (rank == up && rank > 0).then_some([outputs, inputs])
        })?;
        let factor = |whole, a, b| -> std::result::Result<_, String> {
            let product =
                self.product(a, b, |[rows, rank], [b, columns]| (rank == b && rank > 0).then_some([rows, columns]));
            Ok(self.matrix(whole).or(product?))
        };
        let left = factor(Role::Kron1, Role::Kron1A, Role::Kron1B)?;
        let right = factor(Role::Kron2, Role::Kron2A, Role::Kron2B)?;
        match (low_rank, left, right) {
            (low_rank, None, None) => Ok(low_rank),
            (None, Some([a, b]), Some([c, d])) => {
                let product = a.checked_mul(c).zip(b.checked_mul(d)).map(|(rows, columns)| [rows, columns]);
                product.ok_or_else(|| "has a Kronecker product that is too large".into()).map(Some)
            }
            _ => Err("has an incomplete Kronecker product".into()),
        }
    }

    /// Combines the shapes of two matrices that belong together.
    fn product(
        &self,
        first: Role,
        second: Role,
        combine: impl Fn([usize; 2], [usize; 2]) -> Option<[usize; 2]>,
    ) -> std::result::Result<Option<[usize; 2]>, String> {
        match (self.matrix(first), self.matrix(second)) {
            (None, None) => Ok(None),
            (Some(a), Some(b)) => {
                combine(a, b).map(Some).ok_or_else(|| format!("has matrices of {a:?} and {b:?}, whose ranks differ"))
            }
            _ => Err("has only one of two matrices".into()),
        }
    }

    fn axis(&self) -> Option<Axis> {
        Axis::of(self.shape(Role::Magnitude)?, self.outputs(), self.target.inputs)
    }

    /// Returns the tensors with the names of their roles, and of their rows only those of the layer.
    fn tensors(&self) -> Weights {
        let mut weights = Weights::empty(self.container.shard.path());
        for (role, key) in self.module {
            let is_of_rows = role.has_output_rows() || (*role == Role::Magnitude && self.axis() == Some(Axis::Rows));
            let rows = if is_of_rows { self.target.rows } else { Rows::All };
            weights.insert_from(self.container, key, rows, role.name());
        }
        weights
    }
}

/// Returns whether a part is a text encoder.
pub(super) fn is_text_encoder(part: PartKind) -> bool {
    matches!(part, PartKind::ClipL | PartKind::ClipG | PartKind::T5)
}
