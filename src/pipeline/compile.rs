//! A pipeline ready to run: schemas compiled, routes found by topic.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use jsonschema::Validator;
use sha2::{Digest as _, Sha256};

use super::classify::{Class, Classified, classify, classify_nothing};
use super::decode::{Event, Raw};
use super::map::{identify, map};
use super::route::{Delivery, Prepared};
use super::validate::validate;
use crate::config::Diagnostic;
use crate::config::pipelines::{
    Action, Format, Identity, KafkaSpec, Keep, MatchSpec, PipelineSpec, Protocol, RouteSpec, Start, Tombstone,
};
use crate::event::{Borrowed, Digest, Limits, Refusal, RouteNames};

/// A pipeline ready to run. Shared by all workers; nothing in it changes.
#[derive(Debug)]
pub struct Pipeline {
    name: String,
    source: KafkaSpec,
    routes: Vec<Route>,
    by_topic: HashMap<String, Vec<usize>>,
    revision: String,
    limits: Limits,
}

/// One route ready to run.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) names: Arc<RouteNames>,
    pub(super) matches: MatchSpec,
    pub(super) format: Option<Format>,
    pub(super) tombstone: Tombstone,
    pub(super) does: Does,
}

/// What a route does.
#[derive(Debug)]
pub(super) enum Does {
    Skip,
    Keep(Box<Keeping>),
}

/// What a recording route does, with its schema compiled.
pub(super) struct Keeping {
    pub(super) validator: Validator<Borrowed>,
    pub(super) keep: Keep,
}

impl fmt::Debug for Keeping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keeping").field("keep", &self.keep).finish_non_exhaustive()
    }
}

impl Pipeline {
    /// Compiles a checked pipeline.
    ///
    /// # Errors
    /// Every schema that the schema compiler refuses.
    pub fn compile(spec: &PipelineSpec) -> Result<Self, Vec<Diagnostic>> {
        let mut found = Vec::new();
        let mut routes = Vec::with_capacity(spec.routes.len());
        let mut by_topic: HashMap<String, Vec<usize>> = HashMap::new();
        let mut over_all = Sha256::new();
        for route in &spec.routes {
            match compile_route(&spec.name, route) {
                Ok(compiled) => {
                    over_all.update(compiled.names.route.as_bytes());
                    over_all.update(compiled.names.mapping_revision.as_bytes());
                    by_topic.entry(route.matches.topic.clone()).or_default().push(routes.len());
                    routes.push(compiled);
                }
                Err(diagnostic) => found.push(diagnostic),
            }
        }
        if !found.is_empty() {
            return Err(found);
        }
        Ok(Self {
            name: spec.name.clone(),
            source: spec.source.clone(),
            routes,
            by_topic,
            revision: short(over_all),
            limits: Limits::default(),
        })
    }

    /// The pipeline's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The topics that it reads.
    pub fn topics(&self) -> &[String] {
        &self.source.topics
    }

    /// Its consumer group.
    pub fn group(&self) -> &str {
        &self.source.group
    }

    /// Where a group that never read a topic starts.
    pub fn start(&self) -> Start {
        self.source.start
    }

    /// How the group's members share partitions.
    pub fn protocol(&self) -> Protocol {
        self.source.protocol
    }

    /// Of topics whose log was replaced where no topic id says so: which one it is.
    pub fn topic_epochs(&self) -> &BTreeMap<String, u32> {
        &self.source.topic_epochs
    }

    /// Sixteen hex digits over all routes and their schemas.
    pub fn revision(&self) -> &str {
        &self.revision
    }

    /// Decides everything about one message that can be decided without a look at what is stored.
    pub fn prepare(&self, delivery: &Delivery<'_>) -> Prepared {
        let indices = self.by_topic.get(&delivery.origin.partition.topic).map(Vec::as_slice).unwrap_or_default();
        let candidates = indices.iter().filter_map(|at| self.routes.get(*at));
        match delivery.value.filter(|value| !value.is_empty()) {
            None => self.settle(classify_nothing(candidates, delivery)),
            Some(value) => {
                let raw = Raw::new(delivery, value, &self.limits);
                self.settle(classify(candidates, &raw))
            }
        }
    }

    fn settle(&self, class: Class<'_, '_>) -> Prepared {
        match class {
            Class::Skipped => Prepared::Skipped,
            Class::Refused(refusal, event) => {
                Prepared::Refused { refusal, route: None, content_digest: event.and_then(|event| own_digest(&event)) }
            }
            Class::Taken(classified) => keep(classified),
        }
    }
}

/// Validates and maps an event that a route took.
fn keep(classified: Classified<'_, '_>) -> Prepared {
    let (names, identity, event) = (&classified.route.names, &classified.keeping.keep.identity, classified.event);
    let refused = |refusal: Refusal, content_digest: Option<Digest>| Prepared::Refused {
        refusal,
        route: Some(Arc::clone(names)),
        content_digest,
    };
    let valid = match validate(classified) {
        Ok(valid) => valid,
        Err(refusal) => return refused(refusal, identify(identity, &event).ok().map(|event| event.content_digest)),
    };
    let identified = match identify(identity, &event) {
        Ok(identified) => identified,
        Err(refusal) => return refused(refusal, None),
    };
    let content_digest = identified.content_digest;
    match map(&valid, identified) {
        Ok(mapped) => Prepared::Event(Box::new(mapped)),
        Err(refusal) => refused(refusal, Some(content_digest)),
    }
}

/// The digest of an event that no route took: only an envelope says who it is.
fn own_digest(event: &Event<'_>) -> Option<Digest> {
    identify(&Identity::Envelope, event).ok().map(|identified| identified.content_digest)
}

fn compile_route(pipeline: &str, spec: &RouteSpec) -> Result<Route, Diagnostic> {
    let mut revision = Sha256::new();
    revision.update(spec.canonical.as_bytes());
    let does = match &spec.action {
        Action::Skip(_) => Does::Skip,
        Action::Keep(keep) => {
            for bytes in keep.schema.bytes() {
                // The length keeps files apart.
                revision.update((bytes.len() as u64).to_be_bytes());
                revision.update(bytes);
            }
            Does::Keep(Box::new(Keeping { validator: keep.schema.validator()?, keep: (**keep).clone() }))
        }
    };
    let names =
        RouteNames { pipeline: pipeline.to_owned(), route: spec.name.clone(), mapping_revision: short(revision) };
    Ok(Route {
        names: Arc::new(names),
        matches: spec.matches.clone(),
        format: spec.format,
        tombstone: spec.tombstone,
        does,
    })
}

/// The first sixteen hex digits.
fn short(hash: Sha256) -> String {
    let mut hex = Digest(hash.finalize().into()).hex();
    hex.truncate(16);
    hex
}

#[cfg(test)]
mod tests;
