"""Customers, played by a model or a person."""

from enum import Enum
from typing import Any

from litellm import completion

GREETING = {"role": "user", "content": "Welcome to the shop. What brings you here?"}
STOP = "###STOP###"


class BaseUserSimulationEnv:
    metadata: dict[str, Any] = {}

    def get_total_cost(self) -> float:
        return 0.0


class HumanUserSimulationEnv(BaseUserSimulationEnv):
    def reset(self, instruction: str) -> str:
        return input(f"{instruction}\n")

    def step(self, content: str) -> str:
        return input(f"{content}\n")


class LLMUserSimulationEnv(BaseUserSimulationEnv):
    task_words = "Play a customer who writes to a shop, one short message at a time."
    end_words = f"When you have got what you came for, write {STOP} and nothing else."

    def __init__(self, model: str, provider: str) -> None:
        self.messages: list[dict[str, Any]] = []
        self.model = model
        self.provider = provider
        self.total_cost = 0.0
        self.reset()

    def ask(self, messages: list[dict[str, Any]]) -> Any:
        answer = completion(model=self.model, custom_llm_provider=self.provider, messages=messages)
        self.total_cost = answer._hidden_params["response_cost"]
        return answer.choices[0].message

    def generate_next_message(self, messages: list[dict[str, Any]]) -> str:
        said = self.ask(messages)
        self.messages.append(said.model_dump())
        return said.content

    def build_system_prompt(self, instruction: str | None) -> str:
        told = "" if instruction is None else f"\n\nInstruction: {instruction}\n"
        return f"{self.task_words}{told}\n{self.end_words}"

    def reset(self, instruction: str | None = None) -> str:
        system = {"role": "system", "content": self.build_system_prompt(instruction=instruction)}
        self.messages = [system, dict(GREETING)]
        return self.generate_next_message(self.messages)

    def step(self, content: str) -> str:
        self.messages.append({"role": "user", "content": content})
        return self.generate_next_message(self.messages)

    def get_total_cost(self) -> float:
        return self.total_cost


class ReactUserSimulationEnv(LLMUserSimulationEnv):
    end_words = f"Write 'Thought:' and what you think, then 'User Response:' and your message; at the end {STOP} there."

    def __init__(self, model: str, provider: str) -> None:
        super().__init__(model=model, provider=provider)
        self.reset()

    def generate_next_message(self, messages: list[dict[str, Any]]) -> str:
        return self.parse_response(super().generate_next_message(messages))

    def parse_response(self, response: str) -> str:
        if STOP in response:
            return STOP
        for mark in ("Thought:", "User Response:"):
            if mark in response:
                _, said = response.split(mark)
                return said.strip()
        raise ValueError(f"Neither thought nor response: {response}")


def transcript_of(messages: list[dict[str, Any]]) -> str:
    names = {"user": "Shop's question", "assistant": "Customer's answer"}
    return "\n".join(f"{names.get(each['role'], each['role'])}: {each['content']}" for each in messages)


def supervise(model: str, provider: str, words: str) -> str:
    message = {"role": "user", "content": words}
    answer = completion(model=model, custom_llm_provider=provider, messages=[message])
    return answer.choices[0].message.content


def verify(model: str, provider: str, response: Any, messages: list[dict[str, Any]]) -> bool:
    words = f"Is the draft a good answer? true or false.\n{transcript_of(messages)}\nDraft: {response}\nClassification:"
    return "true" in supervise(model, provider, words).lower()


def reflect(model: str, provider: str, response: Any, messages: list[dict[str, Any]]) -> str:
    words = (
        f"The draft is bad.\n{transcript_of(messages)}\nDraft: {response}\nReflection:\n<why>\n\nResponse:\n<better>"
    )
    _, better = supervise(model, provider, words).split("Response:")
    return better.strip()


class VerifyUserSimulationEnv(LLMUserSimulationEnv):
    def __init__(self, model: str, provider: str, max_attempts: int = 3) -> None:
        self.model = model
        self.provider = provider
        self.max_attempts = max_attempts
        self.reset()

    def generate_next_message(self, messages: list[dict[str, Any]]) -> str:
        for _ in range(self.max_attempts):
            draft = self.ask(messages)
            if verify(self.model, self.provider, draft, messages):
                self.messages.append(draft.model_dump())
                break
        return draft.content


class ReflectionUserSimulationEnv(LLMUserSimulationEnv):
    def __init__(self, model: str, provider: str, max_attempts: int = 2) -> None:
        self.model = model
        self.provider = provider
        self.max_attempts = max_attempts
        self.reset()

    def generate_next_message(self, messages: list[dict[str, Any]]) -> str:
        seen = messages.copy()
        first = draft = super().generate_next_message(seen)
        for attempt in range(self.max_attempts):
            if verify(self.model, self.provider, draft, seen):
                return draft
            if attempt + 1 < self.max_attempts:
                seen.append({"role": "user", "content": reflect(self.model, self.provider, first, seen)})
                draft = super().generate_next_message(seen)
        return first


class UserStrategy(Enum):
    HUMAN = "human"
    LLM = "llm"
    REACT = "react"
    VERIFY = "verify"
    REFLECTION = "reflection"


def load_user(
    user_strategy: str | UserStrategy, model: str | None = "gpt-4o", provider: str | None = None
) -> BaseUserSimulationEnv:
    kind = UserStrategy(user_strategy)
    if kind is UserStrategy.HUMAN:
        return HumanUserSimulationEnv()
    if model is None or provider is None:
        raise ValueError(f"{kind.value} needs a model and a provider")
    return {
        UserStrategy.LLM: LLMUserSimulationEnv,
        UserStrategy.REACT: ReactUserSimulationEnv,
        UserStrategy.VERIFY: VerifyUserSimulationEnv,
        UserStrategy.REFLECTION: ReflectionUserSimulationEnv,
    }[kind](model=model, provider=provider)
