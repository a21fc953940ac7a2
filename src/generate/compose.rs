//! Composes single events about the wallets known so far.

use fastrand::Rng;

use super::event::{Event, Json, Style, TRANSACTION_TOPIC, TimeForm, WALLET_TOPIC};
use super::plan::Plan;
use super::wallet::{FIRST_USER, IDENTITY, PROFILE, STATUS, Slot, USERS, Wallet, hash_text};

/// A wallet that was asked for, to be asked for again under another event id.
#[derive(Clone, Debug)]
struct Request {
    key: String,
    data: Vec<(&'static str, Json)>,
}

/// What an event says, before it has an id, a time and a form.
struct Draft {
    kind: &'static str,
    key: String,
    wallet_id: String,
    version: Option<[u64; 4]>,
    data: Vec<(&'static str, Json)>,
}

/// Makes events. Nothing here decides what comes next.
#[derive(Debug)]
pub(super) struct Composer {
    seed: u64,
    wallets_max: u64,
    wallets: Vec<Wallet>,
    requests: Vec<Request>,
    clock_us: i64,
    number: u64,
    structured_only: bool,
}

impl Composer {
    const REQUESTS_MAX: usize = 64;
    /// The most time between two events.
    const STEP_US: i64 = 20_000;

    /// The first wallet, the hot one, is there from the beginning.
    pub(super) fn new(plan: &Plan) -> Self {
        Self {
            seed: plan.seed,
            wallets_max: plan.wallets,
            wallets: vec![Wallet::new(plan.seed, 0)],
            requests: Vec::new(),
            clock_us: plan.start_us,
            number: 0,
            structured_only: plan.event_bytes > 0,
        }
    }

    /// Time goes on.
    pub(super) fn tick(&mut self, rng: &mut Rng) {
        self.clock_us += rng.i64(1..=Self::STEP_US);
    }

    pub(super) fn now(&self) -> i64 {
        self.clock_us
    }

    /// How many wallets are known.
    pub(super) fn wallets(&self) -> u64 {
        self.wallets.len() as u64
    }

    pub(super) fn wallet(&self, wallet: usize) -> &Wallet {
        &self.wallets[wallet]
    }

    pub(super) fn hot_key(&self) -> &[u8] {
        self.wallets[0].wallet_id.as_bytes()
    }

    /// One more wallet, unless there are as many as were asked for.
    pub(super) fn next_wallet(&mut self) -> Option<usize> {
        if self.wallets() >= self.wallets_max {
            return None;
        }
        self.wallets.push(Wallet::new(self.seed, self.wallets()));
        Some(self.wallets.len() - 1)
    }

    /// A version of a state went out.
    pub(super) fn sent(&mut self, wallet: usize, slot: Slot, version: [u64; 4]) {
        self.wallets[wallet].versions[slot] = Some(version);
    }

    /// A request for a new wallet, and whether nothing asked for that wallet before.
    pub(super) fn request(&mut self, rng: &mut Rng) -> (Event, bool) {
        if !self.requests.is_empty() && rng.u32(0..4) == 0 {
            let place = rng.usize(0..self.requests.len());
            let Request { key, mut data } = self.requests[place].clone();
            // Neither makes another request of it.
            data.retain(|(name, _)| *name != "priority");
            data.push(("priority", text("high")));
            if !data.iter().any(|(name, _)| *name == "generation") {
                data.push(("generation", Json::Raw("1".to_owned())));
            }
            let draft = Draft { kind: "wallet.requested", key, wallet_id: String::new(), version: None, data };
            return (self.event(draft, rng), false);
        }
        let user_id = format!("usr_{:012x}", rng.u64(..) >> 16);
        let chain = ["evm:1", "evm:137", "solana:mainnet", "stellar:pubnet", "aptos:1", "sui:mainnet"][rng.usize(0..6)];
        let mut data = vec![
            ("user_id", text(&user_id)),
            ("chain", text(chain)),
            ("custody", text(["hsm", "kms", "vendor"][rng.usize(0..3)])),
            ("alias", Json::Text(format!("wallet-{}", self.number))),
        ];
        if rng.u32(0..3) == 0 {
            data.push(("tenant", text(["acme", "globex"][rng.usize(0..2)])));
        }
        if rng.u32(0..4) == 0 {
            data.push(("request_id", Json::Text(format!("req-{:x}-{}", self.seed, self.number))));
        }
        if rng.u32(0..8) == 0 {
            data.push(("generation", Json::Raw("2".to_owned())));
        }
        if rng.u32(0..4) == 0 {
            data.push(("priority", text("low")));
        }
        let draft = Draft { kind: "wallet.requested", key: user_id, wallet_id: String::new(), version: None, data };
        (self.event(draft, rng), true)
    }

    /// Remembers a request that is recorded, so that it can be asked for again.
    pub(super) fn requested(&mut self, event: &Event, rng: &mut Rng) {
        let request = Request { key: event.key.clone(), data: event.data.clone() };
        if self.requests.len() < Self::REQUESTS_MAX {
            self.requests.push(request);
        } else {
            let place = rng.usize(0..self.requests.len());
            self.requests[place] = request;
        }
    }

    /// A transaction of this wallet: submitted, or what became of the last one.
    pub(super) fn transaction(&mut self, wallet: usize, rng: &mut Rng) -> Event {
        let number = self.number;
        let seed = self.seed;
        let subject = &mut self.wallets[wallet];
        let (kind, id) = match subject.transaction.take() {
            Some(id) if rng.u32(0..10) < 8 => {
                (if rng.u32(0..10) == 0 { "transaction.failed" } else { "transaction.confirmed" }, id)
            }
            _ => ("transaction.submitted", format!("tx-{seed:x}-{number}")),
        };
        if kind == "transaction.submitted" {
            subject.transaction = Some(id.clone());
        }
        let subject = &self.wallets[wallet];
        let other = &subject.peers[rng.usize(0..subject.peers.len())];
        let mut data = vec![
            ("transaction_id", Json::Text(id)),
            ("wallet_id", Json::Text(subject.written_id())),
            ("amount", amount(rng)),
            ("asset", text(["native", "usdc", "weth", "xlm"][rng.usize(0..4)])),
            ("from", text(&subject.address)),
            ("to", text(other)),
        ];
        if kind != "transaction.submitted" {
            data.push(("hash", Json::Text(hash_text(rng))));
            data.push(("fee", Json::Text(rng.u64(1..10_000_000_000_000_000).to_string())));
            data.push(("block_number", Json::Raw(rng.u64(18_000_000..30_000_000).to_string())));
        }
        if kind == "transaction.failed" {
            data.push(("error", text("execution reverted")));
        }
        let wallet_id = subject.wallet_id.clone();
        self.event(Draft { kind, key: wallet_id.clone(), wallet_id, version: None, data }, rng)
    }

    /// A state of this wallet under this version. Its content is new each time.
    pub(super) fn state(&mut self, wallet: usize, slot: Slot, version: [u64; 4], rng: &mut Rng) -> Event {
        let number = self.number;
        let subject = &self.wallets[wallet];
        let mut data = Vec::with_capacity(8);
        data.push(("wallet_id", Json::Text(subject.written_id())));
        let kind = match slot {
            IDENTITY => {
                let blockchain_type = subject.chain.split(':').next().unwrap_or_default();
                data.push(("blockchain_type", text(blockchain_type)));
                data.push(("address", text(&subject.address)));
                data.push(("owner", Json::Text(format!("own_{number}"))));
                data.push(("provider", text(["crossmint", "fireblocks", "self"][rng.usize(0..3)])));
                if rng.bool() {
                    data.push(("provider_wallet_id", Json::Text(format!("pw-{number}"))));
                }
                if rng.u32(0..3) == 0 {
                    data.push(("request_id", Json::Text(format!("req-{number}"))));
                }
                "wallet.created"
            }
            PROFILE => {
                if rng.u32(0..4) > 0 {
                    data.push(("label", Json::Text(format!("Kasse \"{number}\" – ü"))));
                }
                if data.len() == 1 || rng.bool() {
                    let tags = vec![("team".to_owned(), "treasury".to_owned()), ("n".to_owned(), number.to_string())];
                    data.push(("tags", Json::Map(tags)));
                }
                "wallet.updated"
            }
            STATUS => {
                let status = ["pending", "active", "active", "frozen", "closed"][rng.usize(0..5)];
                data.push(("wallet_status", text(status)));
                if rng.bool() {
                    data.push(("reason", Json::Text(format!("case {number}"))));
                }
                "wallet.status_changed"
            }
            user => {
                let user_id = subject.users[(user - FIRST_USER) % USERS].clone();
                data.push(("user_id", Json::Text(user_id)));
                if rng.u32(0..4) > 0 {
                    data.push(("role", text(["owner", "operator", "viewer"][rng.usize(0..3)])));
                    let scopes = ["read", "sign", "admin"][..rng.usize(0..=3)].iter().map(|scope| (*scope).to_owned());
                    data.push(("scopes", Json::List(scopes.collect())));
                    data.push(("granted_by", Json::Text(format!("adm_{number}"))));
                    "mapping.granted"
                } else {
                    data.push(("revoked_by", Json::Text(format!("adm_{number}"))));
                    "mapping.revoked"
                }
            }
        };
        data.push(("version", version_json(version)));
        let wallet_id = subject.wallet_id.clone();
        self.event(Draft { kind, key: wallet_id.clone(), wallet_id, version: Some(version), data }, rng)
    }

    fn event(&mut self, draft: Draft, rng: &mut Rng) -> Event {
        let Draft { kind, key, wallet_id, version, data } = draft;
        let (topic, source) = if kind.starts_with("transaction.") {
            (TRANSACTION_TOPIC, "/demo/transactions")
        } else {
            (WALLET_TOPIC, "/demo/wallets")
        };
        let number = self.number;
        self.number += 1;
        // Ids are any text: some hold what joins and escapes them in storage.
        let id = if number % 97 == 5 {
            format!("{:x}|{number}%7C é", self.seed)
        } else {
            format!("{:x}-{number}", self.seed)
        };
        let time_form = TimeForm::any(rng);
        let binary = !self.structured_only && id.is_ascii() && rng.u32(0..10) == 0;
        Event {
            topic,
            key,
            wallet_id,
            id,
            source,
            kind,
            at: time_form.fit(self.clock_us),
            time_form,
            version,
            data,
            correlation_id: (rng.u32(0..5) == 0).then(|| format!("corr-{number}")),
            traceparent: (rng.u32(0..5) == 0).then(|| format!("00-{:032x}-{:016x}-01", rng.u128(1..), rng.u64(1..))),
            style: Style { binary, rotate: 0, spaced: rng.u32(0..20) == 0 },
        }
    }
}

fn text(value: &str) -> Json {
    Json::Text(value.to_owned())
}

/// A number where it has one part, else an array without trailing zeros.
fn version_json(version: [u64; 4]) -> Json {
    let used = version.iter().rposition(|part| *part != 0).unwrap_or(0);
    if used == 0 {
        return Json::Raw(version[0].to_string());
    }
    let parts: Vec<_> = version[..=used].iter().map(u64::to_string).collect();
    Json::Raw(format!("[{}]", parts.join(",")))
}

/// Amounts as blockchains have them: often beyond 64 bits, some with a fraction, some as JSON numbers.
fn amount(rng: &mut Rng) -> Json {
    let long = |rng: &mut Rng, digits: usize| {
        let mut out = String::with_capacity(digits);
        out.push(rng.digit(10).max('1'));
        (1..digits).for_each(|_| out.push(rng.digit(10)));
        out
    };
    match rng.u32(0..8) {
        0 => Json::Text(rng.u64(0..1_000_000).to_string()),
        1 => Json::Text("115792089237316195423570985008687907853269984665640564039457584007913129639935".to_owned()),
        2 => Json::Raw(long(rng, 21)),
        3 => Json::Raw(format!("{}.{}0", rng.u32(0..1_000), rng.u32(0..100))),
        4 => Json::Text(format!("{}.{:018}", rng.u32(0..1_000), rng.u64(0..1_000_000_000_000_000_000))),
        5 => Json::Text(rng.u64(..).to_string()),
        _ => {
            let digits = rng.usize(20..60);
            Json::Text(long(rng, digits))
        }
    }
}
