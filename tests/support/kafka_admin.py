"""What an operator does to a Kafka: topics made, grown, emptied and deleted; rights given and taken."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.protocol.admin import CreateAclsRequest, DeleteAclsRequest, DescribeAclsRequest
from aiokafka.protocol.metadata import MetadataRequest
from tests.support.deadline import DEADLINE
from tests.support.kafka import Kafka

_TOPIC, _LITERAL, _ANY, _DENY, _ALLOW = 2, 3, 1, 2, 3
_OPERATIONS: Final = {"Read": 3, "Write": 4, "Create": 5, "Delete": 6, "Alter": 7, "Describe": 8, "DescribeConfigs": 10}
_TURN = 0.02


class Operator:
    """May do all. Each method returns once what it did is in force."""

    def __init__(self, client: AIOKafkaAdminClient) -> None:
        self._client: Any = client

    async def make(
        self, topic: str, partitions: int, settings: Mapping[str, str] | None = None, *, copies: int = 1
    ) -> None:
        """Make a topic."""
        answer = await self._client.create_topics([NewTopic(topic, partitions, copies, topic_configs=settings)])
        assert [error[1] for error in answer.topic_errors] == [0], answer
        await self._until(lambda: self._has(topic, partitions))

    async def see(self, servers: int) -> None:
        """Return once there are so many servers."""

        async def sees() -> bool:
            return len((await self._send(MetadataRequest([]))).brokers) == servers

        await self._until(sees)

    async def grow(self, topic: str, partitions: int) -> None:
        """Add partitions until there are so many."""
        await self._client.create_partitions({topic: NewPartitions(partitions)})
        await self._until(lambda: self._has(topic, partitions))

    async def partitions(self, topic: str) -> int:
        """How many it has."""
        answer = await self._send(MetadataRequest([topic], allow_auto_topic_creation=False))
        return sum(len(parts) for *_, parts in answer.topics)

    async def delete(self, topic: str) -> None:
        """Delete a topic."""
        await self._client.delete_topics([topic])
        await self._until(lambda: self._has(topic, 0))

    async def empty(self, topic: str, partitions: int) -> None:
        """Delete all records, as the end of their retention would."""
        await self._client.delete_records(
            {TopicPartition(topic, number): RecordsToDelete(-1) for number in range(partitions)}
        )

    async def settings(self, topic: str) -> Mapping[str, str]:
        """A topic's settings."""
        (answer,) = await self._client.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
        return {name: value for *_, entries in answer.resources for name, value, *_ in entries}

    async def allow(self, user: str, topic: str, *operations: str) -> None:
        """Let a user do this with a topic."""
        for operation in operations:
            await self._acl(CreateAclsRequest, user, topic, operation, _ALLOW)
        await self._until(lambda: self._lists(user, topic, len(operations)))

    async def forbid(self, user: str, topic: str, operation: str) -> None:
        """Forbid it, whatever is allowed."""
        before = await self._acls(user, topic)
        await self._acl(CreateAclsRequest, user, topic, operation, _DENY)
        await self._until(lambda: self._lists(user, topic, before + 1))

    async def relent(self, user: str, topic: str, operation: str) -> None:
        """Forbid it no longer."""
        before = await self._acls(user, topic)
        await self._acl(DeleteAclsRequest, user, topic, operation, _DENY)
        await self._until(lambda: self._lists(user, topic, before - 1))

    # ── inside ────────────────────────────────────────────────────────────────────────────────────────

    async def _send(self, request: Any) -> Any:
        return await self._client._client.send(self._client._client.get_random_node(), request)

    async def _acl(self, request: Any, user: str, topic: str, operation: str, permission: int) -> None:
        await self._send(request(_TOPIC, topic, _LITERAL, f"User:{user}", "*", _OPERATIONS[operation], permission))

    async def _acls(self, user: str, topic: str) -> int:
        answer = await self._send(DescribeAclsRequest(_TOPIC, topic, _LITERAL, f"User:{user}", "*", _ANY, _ANY))
        return sum(len(acls) for *_, acls in answer.resources)

    async def _lists(self, user: str, topic: str, count: int) -> bool:
        return await self._acls(user, topic) == count

    async def _has(self, topic: str, partitions: int) -> bool:
        answer = await self._send(MetadataRequest([topic], allow_auto_topic_creation=False))
        leaders = [leader for *_, parts in answer.topics for _, _, leader, *_ in parts]
        return len(leaders) == partitions and -1 not in leaders

    async def _until(self, holds: Callable[[], Awaitable[bool]]) -> None:
        async with asyncio.timeout(DEADLINE):
            while not await holds():
                await asyncio.sleep(_TURN)


@asynccontextmanager
async def operating(kafka: Kafka) -> AsyncIterator[Operator]:
    """An operator at this server."""
    client = AIOKafkaAdminClient(bootstrap_servers=f"127.0.0.1:{kafka.port}")
    await client.start()
    try:
        yield Operator(client)
    finally:
        await client.close()
