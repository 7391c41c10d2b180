"""Everything that Postroom raises, by who can act on it.

::

    PostroomError
    ├── ProtocolViolation      the client's author: gets an ERROR frame with the sentence, then the close
    │   ├── MalformedFrame     the bytes are not a frame of the protocol
    │   ├── LimitExceeded      a limit of size or number
    │   └── UnexpectedFrame    a frame that has no place in this state
    ├── Refused                the sender: gets a MESSAGE on its error queue; the session lives on
    │   ├── NotAllowed
    │   ├── MailboxFull
    │   ├── UnknownDestination
    │   ├── MessageTooLarge
    │   ├── KeyReused          an idempotency key came again with another body
    │   └── TransactionRefused another message of its transaction was refused
    ├── AuthenticationFailed   the client: who it says it is cannot be believed
    ├── HandshakeRefused       the client: an HTTP status instead of the upgrade
    ├── StoreUnavailable       the router: refuses, never accepts
    │   └── OutcomeUnknown     … and may repeat under the same key
    ├── BackplaneUnavailable   nobody at once: counted; reconciliation makes good
    ├── LeaseLost              the node: closes its sessions first, asks later
    │   └── LeaseTaken         the node: waits whether its namesake speaks, and ends then
    ├── NodeReplaced           the CLI: exits with 2, for a restart would only take the name back
    ├── ConfigurationError     the operator: one line with file, line and what would be right
    └── MissingExtra           the installer: which extra to install
"""


class PostroomError(Exception):
    """The root of all errors that Postroom raises."""


class ProtocolViolation(PostroomError):
    """The client broke its protocol. `str()` is one sentence for the client's author."""


class MalformedFrame(ProtocolViolation):
    """The bytes are not a frame of the protocol."""


class LimitExceeded(ProtocolViolation):
    """A frame, a header or a number of things is over its limit."""


class UnexpectedFrame(ProtocolViolation):
    """A well-formed frame that has no place in the connection's present state."""


class Refused(PostroomError):
    """One request is refused; the session goes on. `code` is stable, `str()` is for people."""

    code = "refused"


class NotAllowed(Refused):
    """The principal may not send there or subscribe there."""

    code = "not-allowed"


class MailboxFull(Refused):
    """The mailbox is at its bound and its channel says `reject`."""

    code = "mailbox-full"


class UnknownDestination(Refused):
    """The destination is malformed, or under no prefix that is served."""

    code = "unknown-destination"


class MessageTooLarge(Refused):
    """The message alone is larger than its mailbox may grow."""

    code = "too-large"


class KeyReused(Refused):
    """An idempotency key came again, but with another body."""

    code = "idempotency-key-reused"


class TransactionRefused(Refused):
    """Nothing is wrong with this message, but with another one that it stands or falls with."""

    code = "transaction-refused"


class AuthenticationFailed(PostroomError):
    """The credentials are missing, wrong or no longer valid. `str()` tells the client no secret."""


class HandshakeRefused(PostroomError):
    """The upgrade is answered with the HTTP `status` and the sentence `reason`."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


class StoreUnavailable(PostroomError):
    """The store did not do what was asked, and certainly stored nothing."""


class OutcomeUnknown(StoreUnavailable):
    """The store may or may not have stored it: repeat under the same key, or tell the sender."""


class BackplaneUnavailable(PostroomError):
    """A publish did not reach the backplane."""


class LeaseLost(PostroomError):
    """The node's lease is another incarnation's, or over."""


class LeaseTaken(LeaseLost):
    """Another incarnation holds the lease."""


class NodeReplaced(PostroomError):
    """A node of the same name was started later, and is at work: this one must end."""


class ConfigurationError(PostroomError):
    """A setting is wrong. `str()` is one line: where, what, and what would be right."""


class MissingExtra(PostroomError):
    """A feature needs an optional dependency that is not installed."""

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(f'{feature} needs an optional dependency: pip install "postroom[{extra}]"')
