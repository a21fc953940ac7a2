//! From a file's tree to a checked pipeline, as far as one file can tell.

use std::collections::BTreeMap;
use std::path::Path;

use super::effects::{EffectReader, Scope};
use super::schema::Schemas;
use super::shadow;
use super::spec::{
    Action, Format, Identity, KafkaSpec, Keep, MatchSpec, PipelineSpec, Protocol, RouteSpec, Start, Tombstone,
};
use super::tree::{Key, Place, Problems, Table, Tree, Value, boolean, entries, list, text, word};
use crate::config::{Diagnostic, nearest};
use crate::event::Pointer;
use crate::pipeline::{Glob, Template};

/// Reads one file. What could be understood comes back even where there are problems, for checks between files.
pub(super) fn pipeline(file: &Path, source: &str, schemas: &mut Schemas) -> (Option<PipelineSpec>, Vec<Diagnostic>) {
    let (tree, mut found) = Tree::parse(file, source);
    let Some(tree) = tree else { return (None, found) };
    let mut problems = Problems::of(file);
    let spec = Reader { file, problems: &mut problems, schemas }.pipeline(&tree);
    found.extend(problems.into_inner());
    (spec, found)
}

struct Reader<'r> {
    file: &'r Path,
    problems: &'r mut Problems,
    schemas: &'r mut Schemas,
}

impl Reader<'_> {
    fn pipeline(&mut self, tree: &Tree) -> Option<PipelineSpec> {
        let mut table = Table::open(tree, "the pipeline", self.problems)?;
        let name = table.required("pipeline", self.problems).and_then(|tree| name(tree, "pipeline", self.problems));
        let source = table.required("source", self.problems).and_then(|tree| self.source(tree));
        let topics = source.as_ref().map(|source| source.topics.as_slice());
        let items = table.required("routes", self.problems).and_then(|tree| list(tree, "routes", self.problems));
        let routes = items.map(|items| items.iter().filter_map(|item| self.route(item, topics)).collect::<Vec<_>>());
        table.close(self.problems);
        let (name, source, routes) = (name?, source?, routes?);
        for (at, route) in routes.iter().enumerate() {
            if let Some(first) = routes[..at].iter().find(|earlier| earlier.name == route.name) {
                let message = format!("the route name `{}` is taken by line {}", route.name, first.place.0);
                self.problems.error(route.place, message, "give each route a name of its own");
            }
            if let Some(earlier) = routes[..at].iter().find(|earlier| shadow::covers(earlier, route)) {
                let message = format!("no event reaches route `{}`: `{}` takes all of them", route.name, earlier.name);
                let hint =
                    format!("move it above `{}` (line {}), or narrow that one's match", earlier.name, earlier.place.0);
                self.problems.error(route.place, message, hint);
            }
        }
        // A route that could not be read may be the one.
        let all_read = items.is_some_and(|items| items.len() == routes.len());
        for topic in source.topics.iter().filter(|_| all_read) {
            if !routes.iter().any(|route| route.matches.topic == *topic) {
                let message = format!("no route reads the topic `{topic}`: all of its events will be dead letters");
                self.problems.warning(tree.place, message, "add a route, or leave the topic out");
            }
        }
        Some(PipelineSpec { name, file: self.file.to_owned(), source, routes })
    }

    fn source(&mut self, tree: &Tree) -> Option<KafkaSpec> {
        let mut table = Table::open(tree, "source", self.problems)?;
        let kafka = table.required("kafka", self.problems);
        table.close(self.problems);
        let mut table = Table::open(kafka?, "source.kafka", self.problems)?;
        let listed = table.required("topics", self.problems);
        let place = listed.map_or(table.place, |tree| tree.place);
        let topics = listed.and_then(|tree| self.topics(tree));
        let group = table.required("group", self.problems).and_then(|tree| name(tree, "group", self.problems));
        let start = table.required("start", self.problems).and_then(|tree| self.start(tree));
        let protocols = [("classic", Protocol::Classic), ("consumer", Protocol::Consumer)];
        let protocol = match table.optional("protocol") {
            Some(tree) => word(tree, "protocol", &protocols, self.problems),
            None => Some(Protocol::Classic),
        };
        let topic_epochs = match table.optional("topic_epochs") {
            Some(tree) => self.topic_epochs(tree, topics.as_deref()),
            None => Some(BTreeMap::new()),
        };
        table.close(self.problems);
        let (topics, topic_epochs) = (topics?, topic_epochs?);
        Some(KafkaSpec { topics, place, group: group?, start: start?, protocol: protocol?, topic_epochs })
    }

    fn topic_epochs(&mut self, tree: &Tree, topics: Option<&[String]>) -> Option<BTreeMap<String, u32>> {
        let mut epochs = BTreeMap::new();
        for (key, tree) in entries(tree, "topic_epochs", self.problems)? {
            let topic = key.name.as_str();
            if topics.is_some_and(|topics| !topics.iter().any(|read| read == topic)) {
                let hint = "name a topic of `source.kafka.topics`, or leave it out";
                self.problems.error(key.place, format!("the source does not read the topic `{topic}`"), hint);
                continue;
            }
            let epoch = match &tree.value {
                Value::Integer(digits) => digits.parse::<u32>().ok().filter(|epoch| *epoch > 0),
                _ => None,
            };
            match epoch {
                Some(epoch) => drop(epochs.insert(topic.to_owned(), epoch)),
                None => {
                    let message = format!("the topic epoch of `{topic}` is no number from 1 on");
                    self.problems.error(tree.place, message, "1, and one more each time that the log is replaced");
                }
            }
        }
        Some(epochs)
    }

    fn topics(&mut self, tree: &Tree) -> Option<Vec<String>> {
        let mut topics: Vec<String> = Vec::new();
        for item in list(tree, "topics", self.problems)? {
            let Some(topic) = name(item, "topics", self.problems) else { continue };
            if topics.contains(&topic) {
                self.problems.error(item.place, format!("the topic `{topic}` is listed twice"), "list it once");
            } else {
                topics.push(topic);
            }
        }
        Some(topics)
    }

    fn start(&mut self, tree: &Tree) -> Option<Start> {
        let start = text(tree, "start", self.problems)?;
        match start {
            "earliest" => return Some(Start::Earliest),
            "latest" => return Some(Start::Latest),
            _ => {}
        }
        match start.parse::<jiff::Timestamp>() {
            Ok(time) => Some(Start::At { timestamp_ms: time.as_millisecond() }),
            Err(_) => {
                let hint = match nearest(start, ["earliest", "latest"]) {
                    Some(word) => format!("did you mean `{word}`?"),
                    None => "earliest, latest, or a time such as 2026-01-02T00:00:00Z".to_owned(),
                };
                self.problems.error(tree.place, format!("`start` cannot be `{start}`"), hint);
                None
            }
        }
    }

    fn route(&mut self, tree: &Tree, topics: Option<&[String]>) -> Option<RouteSpec> {
        let mut table = Table::open(tree, "the route", self.problems)?;
        let name = table.required("name", self.problems).and_then(|tree| name(tree, "name", self.problems));
        let mut pointers = Vec::new();
        let matches = table.required("match", self.problems).and_then(|tree| self.matches(tree, topics, &mut pointers));
        let tombstones = [("skip", Tombstone::Skip), ("dead_letter", Tombstone::DeadLetter)];
        let tombstone = match table.optional("tombstone") {
            Some(tree) => word(tree, "tombstone", &tombstones, self.problems),
            None => Some(Tombstone::DeadLetter),
        };
        let skip = table.optional("skip");
        let looks = skip.is_none() || matches.as_ref().is_none_or(|matches| !matches.content.is_empty());
        let format = if looks {
            self.format(&mut table)
        } else {
            table.forbidden("format", "it skips without a look at the value", self.problems);
            table.forbidden("allow_plain", "it skips without a look at the value", self.problems);
            None
        };
        let action = match skip {
            Some(tree) => {
                for key in ["schema", "source", "id", "time", "agree", "records", "wallet", "mapping", "request"] {
                    table.forbidden(key, "it skips", self.problems);
                }
                table.forbidden("consistency", "it skips", self.problems);
                text(tree, "skip", self.problems).map(|reason| Action::Skip(reason.to_owned()))
            }
            None => self.keep(&mut table, format, pointers).map(|keep| Action::Keep(Box::new(keep))),
        };
        let place = table.place;
        table.close(self.problems);
        if looks && format.is_none() {
            return None;
        }
        let mut canonical = String::new();
        tree.canonical(&mut canonical);
        Some(RouteSpec {
            name: name?,
            place,
            matches: matches?,
            format,
            action: action?,
            tombstone: tombstone?,
            canonical,
        })
    }

    fn format(&mut self, table: &mut Table<'_>) -> Option<Format> {
        let words = [
            ("cloudevents", Format::CloudEvents),
            ("json", Format::Json),
            ("confluent-json", Format::ConfluentJson { allow_plain: false }),
        ];
        let format =
            table.required("format", self.problems).and_then(|tree| word(tree, "format", &words, self.problems));
        if !matches!(format, None | Some(Format::ConfluentJson { .. })) {
            table.forbidden("allow_plain", "only confluent-json has frames", self.problems);
            return format;
        }
        let allow_plain = match table.optional("allow_plain") {
            Some(tree) => boolean(tree, "allow_plain", self.problems)?,
            None => false,
        };
        format.map(|_| Format::ConfluentJson { allow_plain })
    }

    fn matches(
        &mut self,
        tree: &Tree,
        topics: Option<&[String]>,
        pointers: &mut Vec<(Place, Pointer)>,
    ) -> Option<MatchSpec> {
        let mut table = Table::open(tree, "match", self.problems)?;
        let topic_tree = table.required("topic", self.problems);
        let topic = topic_tree.and_then(|tree| name(tree, "topic", self.problems));
        let key = match table.optional("key") {
            Some(tree) => Some(Glob::new(text(tree, "key", self.problems)?)),
            None => None,
        };
        let mut headers = Vec::new();
        if let Some(tree) = table.optional("header") {
            for (header, value) in entries(tree, "header", self.problems)? {
                let glob = self.glob(value, &header.name)?;
                headers.push((header.name.clone(), glob));
            }
        }
        let mut content = Vec::new();
        if let Some(tree) = table.optional("content") {
            for (key, value) in entries(tree, "content", self.problems)? {
                let (pointer, glob) = (self.content_pointer(key)?, self.glob(value, &key.name)?);
                pointers.push((key.place, pointer.clone()));
                content.push((pointer, glob));
            }
        }
        table.close(self.problems);
        let topic = topic?;
        if let (Some(topics), Some(tree)) = (topics, topic_tree)
            && !topics.contains(&topic)
        {
            let hint = match nearest(&topic, topics.iter().map(String::as_str)) {
                Some(name) => format!("did you mean `{name}`?"),
                None => "add it to `source.kafka.topics`".to_owned(),
            };
            self.problems.error(tree.place, format!("the source does not read the topic `{topic}`"), hint);
        }
        Some(MatchSpec { topic, key, headers, content })
    }

    fn content_pointer(&mut self, key: &Key) -> Option<Pointer> {
        match Pointer::parse(&key.name) {
            Ok(pointer) if pointer.tokens().len() > 0 => Some(pointer),
            Ok(_) => {
                self.problems.error(key.place, "`content` asks about the whole event", "name a scalar: /pointer");
                None
            }
            Err(error) => {
                let message = format!("`{}` is no pointer: {error}", key.name);
                self.problems.error(key.place, message, format!("did you mean `/{}`?", key.name));
                None
            }
        }
    }

    /// A pattern; whole numbers and booleans are compared by their text.
    fn glob(&mut self, tree: &Tree, what: &str) -> Option<Glob> {
        match &tree.value {
            Value::Integer(digits) => Some(Glob::new(digits)),
            Value::Bool(value) => Some(Glob::new(if *value { "true" } else { "false" })),
            _ => text(tree, what, self.problems).map(Glob::new),
        }
    }

    fn keep(&mut self, table: &mut Table<'_>, format: Option<Format>, pointers: Vec<(Place, Pointer)>) -> Option<Keep> {
        let schema = table.required("schema", self.problems).and_then(|tree| {
            let relative = text(tree, "schema", self.problems)?;
            let path = self.file.parent().unwrap_or(Path::new("")).join(relative);
            if !path.is_file() {
                let message = format!("the schema {} is not there", path.display());
                self.problems.error(tree.place, message, "the path is relative to this file");
                return None;
            }
            let mut found = Vec::new();
            let schema = self.schemas.load(&path, &mut found);
            found.into_iter().for_each(|diagnostic| self.problems.push(diagnostic));
            schema
        });
        let scope = if format == Some(Format::CloudEvents) { Scope::Event } else { Scope::Document };
        let mut effects = EffectReader::new(scope, pointers, self.problems);
        let identity = match format {
            None => {
                // What belongs here depends on the format, which is told to be wrong.
                for key in ["source", "id", "time"] {
                    table.optional(key);
                }
                None
            }
            Some(Format::CloudEvents) => {
                for key in ["source", "id", "time"] {
                    table.forbidden(key, "the CloudEvents envelope gives it", effects.problems);
                }
                Some(Identity::Envelope)
            }
            Some(Format::Json | Format::ConfluentJson { .. }) => {
                let source = table.required("source", effects.problems);
                let source = source.and_then(|tree| text(tree, "source", effects.problems)).map(str::to_owned);
                let id = table.required("id", effects.problems).and_then(|tree| effects.filled(tree, "id"));
                let time = match table.optional("time") {
                    Some(tree) => effects.pointer(tree, "time").map(Some),
                    None => Some(None),
                };
                source.zip(id).zip(time).map(|((source, id), time)| Identity::Route { source, id, time })
            }
        };
        let agree = table.optional("agree").and_then(|tree| effects.agree(tree));
        let records = table.required("records", effects.problems).and_then(|tree| effects.records(tree));
        let wallet = table.optional("wallet").and_then(|tree| effects.wallet(tree));
        let mapping = table.optional("mapping").and_then(|tree| effects.mapping(tree));
        let request = table.optional("request").and_then(|tree| effects.request(tree));
        let consistencies = [("batched", false), ("transactional", true)];
        let transactional = match table.optional("consistency") {
            Some(tree) => word(tree, "consistency", &consistencies, effects.problems),
            None => Some(false),
        };
        if let Some(schema) = &schema {
            effects.check_pointers(schema);
        }
        Some(Keep {
            schema: schema?,
            identity: identity?,
            agree,
            records: records?,
            wallet,
            mapping,
            request,
            transactional: transactional?,
        })
    }
}

/// A name: letters, digits, `.`, `_` and `-`, at most 249 of them (Kafka's rule for topics).
pub(super) fn name(tree: &Tree, what: &str, problems: &mut Problems) -> Option<String> {
    let name = text(tree, what, problems)?;
    let sound = name.len() <= 249 && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    if !sound {
        let message = format!("`{name}` cannot be the name in `{what}`");
        problems.error(tree.place, message, "use letters, digits, `.`, `_` and `-`");
    }
    sound.then(|| name.to_owned())
}

/// A template, or the problem with it.
pub(super) fn template(tree: &Tree, what: &str, problems: &mut Problems) -> Option<Template> {
    let source = text(tree, what, problems)?;
    match Template::parse(source) {
        Ok(template) => Some(template),
        Err(error) => {
            problems.error(tree.place, format!("`{what}` is no template: {error}"), "write \"text{/pointer}text\"");
            None
        }
    }
}
