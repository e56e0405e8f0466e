//! What the tests on SoftHSM share: a token of one's own for each test, and what an operator does to it.
#![allow(dead_code, clippy::allow_attributes, reason = "each test binary uses a part of it")]
#![allow(clippy::expect_used, reason = "what cannot be set up fails its test")]

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, KeyType, ObjectClass};
use cryptoki::session::UserType;
use cryptoki::slot::Slot;
use serde_json::{Value, json};
use tokenward_crypto::{DataKeyMaterial, KeyBinding, KeyEncryption, WrappedKey};
use tokenward_plugin::{Registry, Section};

pub(crate) const PIN: &str = "hunter2pin";
pub(crate) const BINDING: KeyBinding<'_> = KeyBinding { installation: "inst-1", scope: "acme", data_key: 7 };

/// Opens the backend as a server would: from its section of the configuration.
pub(crate) async fn open(values: Value) -> Result<Arc<dyn KeyEncryption>, String> {
    let Value::Object(values) = values else { panic!("a section is an object") };
    let section = Section { at: "encryption".into(), name: "encryption".into(), values };
    let registry = Registry::new("encryption").with(tokenward_crypto_pkcs11::pkcs11());
    let prepared = registry.prepare("pkcs11", &section, &()).map_err(|problems| problems.to_string())?;
    prepared.build().await.map_err(|error| error.to_string())
}

pub(crate) async fn wrap(backend: &dyn KeyEncryption) -> WrappedKey {
    let newest = backend.status().await.expect("it tells its keys").newest;
    let key = DataKeyMaterial::from_bytes([0x5a; 32]);
    backend.wrap(&newest, &BINDING, &key).await.expect("it wraps")
}

/// A token with one key, made by other programs as an operator makes it.
pub(crate) struct Token {
    pub(crate) module: String,
    pub(crate) label: String,
}

impl Token {
    pub(crate) fn new(module: String) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let label = format!("token-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        run(
            "softhsm2-util",
            &["--init-token", "--free", "--label", &label, "--so-pin", "so-pin", "--pin", PIN],
        );
        let token = Self { module, label };
        token.make("01");
        token
    }

    /// Makes a key by the command that the documentation and the messages show.
    pub(crate) fn make(&self, id: &str) {
        self.tool(&["--keygen", "--key-type", "AES:32", "--sensitive", "--id", id, "--label", "tokenward"]);
    }

    /// Makes a key that `pkcs11-tool` does not: of 32 bytes, with this attribute.
    pub(crate) fn make_with(&self, label: &str, attribute: Attribute) {
        let module = Pkcs11::new(&self.module).expect("the module loads");
        module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)).expect("it comes up");
        let named = |slot: &Slot| module.get_token_info(*slot).is_ok_and(|info| info.label() == self.label);
        let slots = module.get_slots_with_token().expect("it tells its slots");
        let slot = slots.into_iter().find(named).expect("the token is there");
        let session = module.open_rw_session(slot).expect("a session");
        session.login(UserType::User, Some(&PIN.into())).expect("the PIN is right");
        let template = [
            Attribute::Class(ObjectClass::SECRET_KEY),
            Attribute::KeyType(KeyType::AES),
            Attribute::ValueLen(32.into()),
            Attribute::Label(label.into()),
            Attribute::Id(vec![1]),
            Attribute::Token(true),
            Attribute::Sensitive(true),
            Attribute::Extractable(false),
            attribute,
        ];
        session.generate_key(&Mechanism::AesKeyGen, &template).expect("it makes one");
    }

    pub(crate) fn delete(&self, id: &str) {
        self.tool(&["--delete-object", "--type", "secrkey", "--id", id, "--label", "tokenward"]);
    }

    pub(crate) fn list(&self) -> String {
        self.tool(&["--list-objects"])
    }

    pub(crate) fn tool(&self, arguments: &[&str]) -> String {
        let login = ["--module", &self.module, "--token-label", &self.label, "--login", "--pin", PIN];
        run("pkcs11-tool", &[&login[..], arguments].concat())
    }

    pub(crate) fn with(&self, more: &Value) -> Value {
        let mut section = json!({"module": self.module, "token_label": self.label});
        section.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        section
    }

    pub(crate) async fn open(&self) -> Arc<dyn KeyEncryption> {
        open(self.with(&json!({"pin": PIN}))).await.expect("the backend comes up")
    }
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().expect("the program runs");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {told}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
