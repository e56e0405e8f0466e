//! What failures mean to a customer, and what the customer can do. Customers know nothing of tokens and tenants.

use tokenward_broker::Reason;

/// A text for a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Explanation {
    /// The heading.
    pub title: &'static str,
    /// What happened.
    pub what: &'static str,
    /// What can be done.
    pub next: &'static [&'static str],
}

const fn text(title: &'static str, what: &'static str, next: &'static [&'static str]) -> Explanation {
    Explanation { title, what, next }
}

const ASK_FOR_LINK: &str = "Ask whoever sent you the link for a new one.";
const OPEN_AGAIN: &str = "Open the link that you were sent once more and start again. It still works.";
const OPEN_LATER: &str = "Wait a few minutes, then open the link that you were sent once more.";
const TELL_SENDER: &str =
    "If it happens again, tell whoever sent you the link, with the reference at the bottom of this page.";
const PASS_ON: &str = "Tell whoever sent you the link, with the reference at the bottom of this page: only they can change this.";

/// The start page, which is for nobody in particular.
pub(super) const FRONT: Explanation = text(
    "Nothing to see here",
    "This address connects accounts. It is reached by a link that somebody sends you; without one, there is nothing to do.",
    &[],
);

/// A result that is not kept any more, or never was.
pub(super) const NO_RESULT: Explanation = text(
    "This result is no longer shown",
    "Results can be looked at for ten minutes. What was connected stays connected.",
    &[
        "To see whether it worked, open the link that you were sent once more: a link that has done its work says so.",
    ],
);

/// An address that leads nowhere.
pub(super) const NO_PAGE: Explanation = text(
    "There is no such page",
    "The address may be incomplete.",
    &[
        "Open the link that you were sent once more. If your mail program broke it into two lines, copy it whole.",
    ],
);

/// A method that a page does not take.
pub(super) const NO_METHOD: Explanation = text(
    "This page cannot be used like that",
    "A program sent a kind of request that this address does not take.",
    &["Open the link that you were sent in a browser."],
);

/// A request beyond the limits.
pub(super) const TOO_LARGE: Explanation = text(
    "The request is too large",
    "The browser sent more than this address takes: a very long address, or too many cookies.",
    &["Delete this site's cookies, or open the link in a private window.", TELL_SENDER],
);

/// What a failure means.
#[expect(clippy::too_many_lines, reason = "a table of texts")]
pub(super) const fn explain(reason: Reason) -> Explanation {
    match reason {
        Reason::LinkUnknown => text(
            "This link is not known",
            "It may be incomplete, or it was withdrawn.",
            &["Check that you copied the whole link: mail programs sometimes break long ones.", ASK_FOR_LINK],
        ),
        Reason::LinkExpired => text(
            "This link has expired",
            "Links work for a limited time, and this one's is over. Nothing was connected by opening it now.",
            &[ASK_FOR_LINK],
        ),
        Reason::LinkUsed => text(
            "This link has done its work",
            "An account was connected by it already. A link works once, so that nobody else can use it after you.",
            &[
                "If that was you, there is nothing left to do.",
                "To connect another account, ask for another link.",
                "If you did not connect anything, tell whoever sent you the link.",
            ],
        ),
        Reason::StateUnknown => text(
            "This answer belongs to nothing that was started here",
            "The page was reached without starting from a link, or so long ago that it was forgotten. Nothing was connected.",
            &[OPEN_AGAIN],
        ),
        Reason::StateExpired => text(
            "That took too long",
            "For your safety, you have a few minutes to allow the access. They were over when you came back. Nothing was connected.",
            &[OPEN_AGAIN],
        ),
        Reason::StateUsed => text(
            "This answer came before",
            "The page was loaded a second time, by going back or reloading. The first time counted, this one changed nothing.",
            &[
                "To see whether it worked, open the link that you were sent once more: a link that has done its work says so.",
            ],
        ),
        Reason::OtherBrowser => text(
            "This is not the browser that you started in",
            "For your safety, you must come back in the same browser, with cookies allowed for this site. Nothing was connected.",
            &[
                "Open the link that you were sent once more, and stay in one browser and window.",
                "If your browser blocks cookies for this site, allow them, or try another browser.",
            ],
        ),
        Reason::ConsentRefused => text(
            "You did not allow the access",
            "So nothing was connected, and nothing was changed.",
            &[
                "If you change your mind, open the link that you were sent once more. It still works.",
                "If you are not permitted to allow it, pass the link on to an administrator of the account.",
            ],
        ),
        Reason::IssuerMismatch => text(
            "The answer came from somewhere else",
            "The answer does not come from the service that you were sent to. It was refused, and nothing was connected.",
            &["Open the link that you were sent once more, and follow no other link on the way.", PASS_ON],
        ),
        Reason::AccountMismatch => text(
            "That was another account",
            "The link is for one account, and another one was chosen. It was not connected.",
            &[
                "Open the link that you were sent once more, and choose the account that its page names.",
                "If you cannot choose it, sign out of the service first, or use a private window.",
                TELL_SENDER,
            ],
        ),
        Reason::AccountTaken => text(
            "This account is connected elsewhere",
            "The account is connected for another customer already, and may be connected once only. Nothing was changed.",
            &[
                "If you chose the wrong account, open the link that you were sent once more and choose another.",
                PASS_ON,
            ],
        ),
        Reason::ScopeNotGranted => text(
            "Some permissions are missing",
            "Not all of the permissions that are needed were granted. Nothing was connected.",
            &[
                "Open the link that you were sent once more, and allow all that is asked for.",
                "If the service does not let you, your account or its plan may lack the feature: ask its administrator.",
            ],
        ),
        Reason::GrantRefused => text(
            "The service did not complete the connection",
            "You came back, but the service did not confirm the access. Nothing was connected.",
            &[OPEN_AGAIN, TELL_SENDER],
        ),
        Reason::TenantSuspended => text(
            "This connection is on hold",
            "Accounts cannot be connected for this customer at the moment.",
            &[PASS_ON],
        ),
        Reason::OAuthClientMisconfigured => text(
            "The connection is not set up correctly",
            "The service does not accept the application that asks for access. This is no fault of yours, and nothing was connected.",
            &[PASS_ON],
        ),
        Reason::ProviderUnavailable => text(
            "The service does not answer",
            "The service that you want to connect has trouble at the moment. Whether it took your answer is not certain.",
            &[OPEN_LATER, TELL_SENDER],
        ),
        Reason::ProviderRateLimited => text(
            "The service is busy",
            "The service that you want to connect asks to come back later. Nothing was connected.",
            &[OPEN_LATER],
        ),
        Reason::StorageUnavailable | Reason::StateStale | Reason::EncryptionUnavailable => text(
            "This does not work at the moment",
            "A part of this site is away for a moment.",
            &[OPEN_LATER, TELL_SENDER],
        ),
        Reason::Overloaded => text(
            "Too many people at once",
            "This site is very busy at the moment.",
            &["Wait a minute, then load the page again."],
        ),
        Reason::DeadlineExceeded => text(
            "That took too long on our side",
            "What was begun may still have been finished.",
            &[
                "Open the link that you were sent once more: a link that has done its work says so.",
                TELL_SENDER,
            ],
        ),
        Reason::InvalidRequest | Reason::RequestTooLarge => text(
            "The address is not right",
            "The browser came back with an address that makes no sense. Nothing was connected.",
            &[OPEN_AGAIN, TELL_SENDER],
        ),
        // None of these is an answer of the connect flow; a page still has to say something.
        Reason::MinTtlTooLong
        | Reason::CallerTokenMissing
        | Reason::CallerTokenInvalid
        | Reason::CallerTokenExpired
        | Reason::CallerBlocked
        | Reason::CallerKeysUnavailable
        | Reason::RoleRequired
        | Reason::AccessDenied
        | Reason::ConnectionRequired
        | Reason::ConnectionAmbiguous
        | Reason::TokenTooBroad
        | Reason::ReauthorizationRequired
        | Reason::GrantSuspect
        | Reason::StoredDataDamaged
        | Reason::KeyNotReady
        | Reason::NotFound
        | Reason::AlreadyExists
        | Reason::EtagMismatch
        | Reason::InUse
        | Reason::Internal => text(
            "Something went wrong on our side",
            "This is no fault of yours.",
            &["Open the link that you were sent once more.", TELL_SENDER],
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// What the broker answers in the connect flow.
    pub(in super::super) const FLOW: &[Reason] = &[
        Reason::LinkUnknown,
        Reason::LinkExpired,
        Reason::LinkUsed,
        Reason::StateUnknown,
        Reason::StateExpired,
        Reason::StateUsed,
        Reason::OtherBrowser,
        Reason::ConsentRefused,
        Reason::IssuerMismatch,
        Reason::AccountMismatch,
        Reason::AccountTaken,
        Reason::ScopeNotGranted,
        Reason::GrantRefused,
        Reason::TenantSuspended,
        Reason::OAuthClientMisconfigured,
        Reason::ProviderUnavailable,
        Reason::ProviderRateLimited,
        Reason::StorageUnavailable,
        Reason::Overloaded,
        Reason::DeadlineExceeded,
        Reason::InvalidRequest,
        Reason::Internal,
    ];

    #[test]
    fn each_failure_of_the_flow_has_a_text_of_its_own_and_says_what_to_do() {
        let texts: Vec<_> = FLOW.iter().map(|&reason| explain(reason)).collect();
        assert_eq!(texts.iter().map(|text| text.title).collect::<HashSet<_>>().len(), FLOW.len());
        assert_eq!(texts.iter().map(|text| text.what).collect::<HashSet<_>>().len(), FLOW.len());
        assert!(texts.iter().all(|text| !text.next.is_empty()));
    }

    #[test]
    fn customers_are_spared_our_words() {
        for &reason in Reason::ALL {
            let Explanation { title, what, next } = explain(reason);
            for sentence in [title, what].into_iter().chain(next.iter().copied()) {
                let words = sentence.to_lowercase();
                for ours in ["token", "tenant", "oauth", "provider", "grant ", "scope", "state "] {
                    assert!(!words.contains(ours), "{reason}: {sentence}");
                }
            }
        }
    }
}
