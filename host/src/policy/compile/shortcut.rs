//! A shorter way into a component's `pick`, and out of it.
//!
//! Owns what is added to a component before it is compiled: an export of the same `pick` whose answer is one number, which
//! the engine need not look up at each call, and which takes along what changed of the requests in flight, so that a guest
//! that asks for it need not leave WebAssembly. It must not change what a guest can do or see: the additions are core
//! modules (`shortcut/*.wat`), in the sandbox with the guest, and stand between it and the host's own functions.
//!
//! Components whose `pick` is not where tools put it are left as they are, and are asked the ordinary way.
//!
//! Invariant: what is made of a component is checked by the engine's own validation, and taken only if that agrees.

use std::convert::Infallible;

use wasm_encoder::{
    Alias, CanonicalFunctionSection, Component, ComponentAliasSection, ComponentExportKind,
    ComponentExportSection, ComponentSectionId, ComponentTypeSection, ComponentValType, ExportKind,
    InstanceSection, ModuleArg, PrimitiveValType, RawSection,
    reencode::{Error, Reencode, ReencodeComponent},
};
use wasmparser::{
    CanonicalFunction, CanonicalOption, Chunk, ComponentAlias, ComponentExternalKind, ComponentTypeRef,
    ExternalKind, Parser, Payload, Validator,
};

/// What the additional export is called. No tool makes one of this name: the contract's have a package before them.
pub(in super::super) const EXPORT: &str = "trimtab-pick";
/// The same of a guest that asks what changed.
pub(in super::super) const EXPORT_TOLD: &str = "trimtab-pick-told";
/// What is added, for the name under which machine code is kept.
pub(in super::super) const PARTS: [&str; 4] = [TOLD, UNTOLD, PICK, RELAY];

const TOLD: &str = include_str!("shortcut/told.wat");
const UNTOLD: &str = include_str!("shortcut/untold.wat");
const PICK: &str = include_str!("shortcut/pick.wat");
const RELAY: &str = include_str!("shortcut/relay.wat");

/// What tools call the core function behind `pick`.
const PICKER: &str = "trimtab:policy/picker@0.1.";
const PICK_SUFFIX: &str = "#pick";
/// The import that is answered on the way.
const POOL: &str = "trimtab:policy/pool@0.1.";
const CHANGES: &str = "active-changes";
/// What answers in its place (`told.wat`).
const CHANGES_EXPORT: &str = "changes";

/// The component with the shorter way; `None` if it has no place for it.
pub(super) fn added(component: &[u8]) -> Option<Vec<u8>> {
    let survey = Survey::of(component)?;
    let pick = survey.pick?;
    let told = survey.changes.as_ref();
    told.and_then(|changes| with_changes(component, &survey, &pick, changes))
        .or_else(|| {
            let mut writer = Writer::after(survey.counts);
            writer.put_pick(&pick, None)?;
            Some(writer.behind(component))
        })
}

/// The same, which takes along what changed.
fn with_changes(component: &[u8], survey: &Survey, pick: &Pick, changes: &Changes) -> Option<Vec<u8>> {
    let mut writer = Writer::after(changes.counts);
    let (told, mut shift) = writer.insert(component, changes)?;
    let mut shifted = |func| shift.function_index(func).ok();
    let pick = Pick {
        func: shifted(pick.func)?,
        memory: pick.memory,
        post: pick.post.and_then(shifted),
    };
    writer.counts = Counts {
        modules: survey.counts.modules + MODULES_PUT,
        core_instances: survey.counts.core_instances + INSTANCES_PUT,
        core_funcs: survey.counts.core_funcs + FUNCS_PUT,
        ..survey.counts
    };
    writer.put_pick(&pick, Some(told))?;
    Some(writer.behind(component.get(..changes.section_end)?))
}

/// How many there are of each kind that has numbers.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    modules: u32,
    core_instances: u32,
    core_funcs: u32,
    types: u32,
    funcs: u32,
    instances: u32,
}

/// The `pick` that tools made: a core function, and how its answer is read.
#[derive(Clone, Copy, Debug)]
struct Pick {
    func: u32,
    memory: u32,
    post: Option<u32>,
}

/// The host's `active-changes`, as the guest's core modules get it.
#[derive(Clone, Copy, Debug)]
struct Changes {
    func: u32,
    /// Where the section ends that has it, and what there was until then.
    section_end: usize,
    counts: Counts,
}

/// What has to be known of a component.
#[derive(Debug, Default)]
struct Survey {
    counts: Counts,
    /// The instance that has the host's functions of the pool, and of these the one that is answered on the way.
    pool: Option<u32>,
    changes_func: Option<u32>,
    changes: Option<Changes>,
    pick_func: Option<u32>,
    pick: Option<Pick>,
}

impl Survey {
    /// `None` if there is no place for what is to be added.
    fn of(component: &[u8]) -> Option<Self> {
        let mut survey = Self::default();
        let mut validator = Validator::new();
        let mut depth = 0;
        for payload in Parser::new(0).parse_all(component) {
            let payload = payload.ok()?;
            if depth == 1 {
                survey.look_at(&payload)?;
            }
            validator.payload(&payload).ok()?;
            match payload {
                Payload::Version { .. } => depth += 1,
                Payload::End(_) => depth -= 1,
                _ => {}
            }
            if depth == 1 {
                survey.count(&validator)?;
                survey.note_section_end(&payload);
            }
        }
        Some(survey)
    }

    /// What there is after a section of the component itself.
    fn count(&mut self, validator: &Validator) -> Option<()> {
        let types = validator.types(0)?;
        self.counts = Counts {
            modules: types.module_count(),
            core_instances: types.core_instance_count(),
            core_funcs: types.function_count(),
            types: types.component_type_count(),
            funcs: types.component_function_count(),
            instances: types.component_instance_count(),
        };
        Some(())
    }

    /// A section of the component itself, while only what is before it is counted.
    fn look_at(&mut self, payload: &Payload<'_>) -> Option<()> {
        let mut counts = self.counts;
        match payload {
            Payload::ComponentImportSection(section) => {
                for import in section.clone() {
                    let import = import.ok()?;
                    if matches!(import.ty, ComponentTypeRef::Instance(_)) {
                        if import.name.name.starts_with(POOL) {
                            self.pool = Some(counts.instances);
                        }
                        counts.instances += 1;
                    }
                }
            }
            Payload::ComponentAliasSection(section) => {
                for alias in section.clone() {
                    self.look_at_alias(&alias.ok()?, &mut counts);
                }
            }
            Payload::ComponentCanonicalSection(section) => {
                for function in section.clone() {
                    self.look_at_canonical(&function.ok()?, &mut counts, section.range().end);
                }
            }
            _ => {}
        }
        Some(())
    }

    fn look_at_alias(&mut self, alias: &ComponentAlias<'_>, counts: &mut Counts) {
        match alias {
            ComponentAlias::CoreInstanceExport {
                kind: ExternalKind::Func,
                name,
                ..
            } => {
                if name.starts_with(PICKER) && name.ends_with(PICK_SUFFIX) {
                    self.pick_func = Some(counts.core_funcs);
                }
                counts.core_funcs += 1;
            }
            ComponentAlias::InstanceExport {
                kind: ComponentExternalKind::Func,
                instance_index,
                name,
            } => {
                if Some(*instance_index) == self.pool && *name == CHANGES {
                    self.changes_func = Some(counts.funcs);
                }
                counts.funcs += 1;
            }
            _ => {}
        }
    }

    fn look_at_canonical(&mut self, function: &CanonicalFunction, counts: &mut Counts, section_end: usize) {
        match function {
            CanonicalFunction::Lift {
                core_func_index,
                options,
                ..
            } => {
                if Some(*core_func_index) == self.pick_func {
                    self.pick = pick(*core_func_index, options);
                }
                counts.funcs += 1;
            }
            CanonicalFunction::Lower { func_index, .. } => {
                if Some(*func_index) == self.changes_func {
                    self.changes = Some(Changes {
                        func: counts.core_funcs,
                        section_end,
                        counts: Counts::default(),
                    });
                }
                counts.core_funcs += 1;
            }
            _ => counts.core_funcs += 1,
        }
    }

    /// If this is the section that has the host's `active-changes`.
    fn note_section_end(&mut self, payload: &Payload<'_>) {
        if let Payload::ComponentCanonicalSection(section) = payload
            && let Some(changes) = &mut self.changes
            && changes.section_end == section.range().end
        {
            changes.counts = self.counts;
        }
    }
}

/// What is known of a lifted `pick`; `None` if it is lifted in a way that nobody expects.
fn pick(func: u32, options: &[CanonicalOption]) -> Option<Pick> {
    let (mut memory, mut post) = (None, None);
    for option in options {
        match option {
            CanonicalOption::Memory(index) => memory = Some(*index),
            CanonicalOption::PostReturn(index) => post = Some(*index),
            CanonicalOption::Realloc(_)
            | CanonicalOption::UTF8
            | CanonicalOption::UTF16
            | CanonicalOption::CompactUTF16 => {}
            _ => return None,
        }
    }
    Some(Pick {
        func,
        memory: memory?,
        post,
    })
}

/// Numbers after what was put in the middle.
#[derive(Clone, Copy, Debug)]
struct Shift {
    /// Who asked for this gets `instead`.
    changes: u32,
    instead: u32,
    before: Counts,
}

/// Of what is put in the middle.
const MODULES_PUT: u32 = 1;
const INSTANCES_PUT: u32 = 2;
const FUNCS_PUT: u32 = 4;

impl Reencode for Shift {
    type Error = Infallible;

    fn function_index(&mut self, func: u32) -> Result<u32, Error<Infallible>> {
        Ok(if func == self.changes {
            self.instead
        } else {
            shifted(func, self.before.core_funcs, FUNCS_PUT)
        })
    }
}

impl ReencodeComponent for Shift {
    fn module_index(&mut self, module: u32) -> u32 {
        shifted(module, self.before.modules, MODULES_PUT)
    }

    fn instance_index(&mut self, instance: u32) -> u32 {
        shifted(instance, self.before.core_instances, INSTANCES_PUT)
    }
}

fn shifted(index: u32, before: u32, put: u32) -> u32 {
    if index < before { index } else { index + put }
}

/// What stands between the host and the guest, by its core functions.
#[derive(Clone, Copy, Debug)]
struct Told {
    tell: u32,
    was_taken: u32,
    nothing: u32,
}

/// What is added, as it grows.
struct Writer {
    added: Component,
    counts: Counts,
}

impl Writer {
    /// Behind so much.
    fn after(counts: Counts) -> Self {
        Self {
            added: Component::new(),
            counts,
        }
    }

    /// All of it. Without its header, what was written is just more sections.
    fn behind(&self, component: &[u8]) -> Vec<u8> {
        let header = Component::new().as_slice().len();
        [component, &self.added.as_slice()[header..]].concat()
    }

    /// Puts what answers `active-changes` after the section that has the host's, and copies what follows.
    fn insert(&mut self, component: &[u8], changes: &Changes) -> Option<(Told, Shift)> {
        let ask = self.module(TOLD, &[("ask", ExportKind::Func, changes.func)])?;
        let told = self.told(ask);
        let instead = self.alias(ask, CHANGES_EXPORT);
        let mut shift = Shift {
            changes: changes.func,
            instead,
            before: changes.counts,
        };
        self.copy(component, changes.section_end, &mut shift)?;
        Some((told, shift))
    }

    /// Copies the sections from `start` on.
    fn copy(&mut self, component: &[u8], start: usize, shift: &mut Shift) -> Option<()> {
        let (mut parser, mut offset) = (Parser::new(0), 0);
        while offset < component.len() {
            let Chunk::Parsed { consumed, payload } = parser.parse(&component[offset..], true).ok()? else {
                return None;
            };
            let is_copied = offset >= start;
            offset += consumed;
            match payload {
                Payload::ModuleSection { unchecked_range, .. } => {
                    // Those behind could not be named from inside other components any more.
                    if is_copied {
                        return None;
                    }
                    offset += unchecked_range.len();
                }
                Payload::ComponentSection { unchecked_range, .. } => {
                    if is_copied {
                        let data = component.get(unchecked_range.clone())?;
                        let id = ComponentSectionId::Component.into();
                        self.added.section(&RawSection { id, data });
                    }
                    offset += unchecked_range.len();
                }
                Payload::CustomSection(_) => {}
                payload if is_copied => shift
                    .parse_component_payload(&mut self.added, payload, component)
                    .ok()?,
                _ => {}
            }
        }
        Some(())
    }

    /// Adds the export, behind everything else.
    fn put_pick(&mut self, pick: &Pick, told: Option<Told>) -> Option<()> {
        let name = if told.is_some() { EXPORT_TOLD } else { EXPORT };
        let told = match told {
            Some(told) => told,
            None => {
                let untold = self.module(UNTOLD, &[])?;
                self.told(untold)
            }
        };
        let short = self.module(
            PICK,
            &[
                ("pick", ExportKind::Func, pick.func),
                ("post", ExportKind::Func, pick.post.unwrap_or(told.nothing)),
                ("tell", ExportKind::Func, told.tell),
                ("was-taken", ExportKind::Func, told.was_taken),
                ("memory", ExportKind::Memory, pick.memory),
            ],
        )?;
        let short = self.alias(short, "pick");
        let relay = self.module(RELAY, &[("pick", ExportKind::Func, short)])?;
        let relayed = self.alias(relay, "pick");
        self.export(name, relayed);
        Some(())
    }

    /// An instance of a core module, which gets these.
    fn module(&mut self, text: &str, imports: &[(&str, ExportKind, u32)]) -> Option<u32> {
        let module = wat::parse_str(text).ok()?;
        let id = ComponentSectionId::CoreModule.into();
        self.added.section(&RawSection { id, data: &module });
        let mut instances = InstanceSection::new();
        instances.export_items(imports.iter().copied());
        let given = self.counts.core_instances;
        instances.instantiate(self.counts.modules, [("", ModuleArg::Instance(given))]);
        self.added.section(&instances);
        self.counts.modules += 1;
        self.counts.core_instances += 2;
        Some(given + 1)
    }

    fn told(&mut self, instance: u32) -> Told {
        Told {
            tell: self.alias(instance, "tell"),
            was_taken: self.alias(instance, "was-taken"),
            nothing: self.alias(instance, "nothing"),
        }
    }

    /// A core function of an instance, by its number.
    fn alias(&mut self, instance: u32, name: &str) -> u32 {
        let mut aliases = ComponentAliasSection::new();
        aliases.alias(Alias::CoreInstanceExport {
            instance,
            kind: ExportKind::Func,
            name,
        });
        self.added.section(&aliases);
        self.counts.core_funcs += 1;
        self.counts.core_funcs - 1
    }

    /// Exports a core function of the type in `pick.wat`.
    fn export(&mut self, name: &str, core_func: u32) {
        const U64: ComponentValType = ComponentValType::Primitive(PrimitiveValType::U64);
        const U32: ComponentValType = ComponentValType::Primitive(PrimitiveValType::U32);
        let mut types = ComponentTypeSection::new();
        types
            .function()
            .params([
                ("key", U64),
                ("random", U64),
                ("client-hi", U64),
                ("client-lo", U64),
                ("attempt", U32),
                ("now-us", U64),
                ("told", U64),
            ])
            .result(Some(U64));
        self.added.section(&types);
        let mut lifts = CanonicalFunctionSection::new();
        lifts.lift(core_func, self.counts.types, []);
        self.added.section(&lifts);
        let mut exports = ComponentExportSection::new();
        exports.export(name, ComponentExportKind::Func, self.counts.funcs, None);
        self.added.section(&exports);
    }
}
