import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { current } from "../state/store";
import { Answer } from "./Answer";
import { Composer } from "./Composer";
import { IconButton } from "./icons";
import { Question } from "./Question";
import { Welcome } from "./Welcome";

/** Pixels from the end within which the view follows what is written. */
const NEAR_PX = 80;

export function Chat() {
  const conversation = current.value;
  const [editing, setEditing] = useState("");
  const { view, isAway, toEnd } = useFollowing(conversation.id, conversation.messages);
  useEffect(() => setEditing(""), [conversation.id]);
  const editLast = (): void => {
    const last = conversation.messages.findLast(({ role }) => role === "user");
    if (last) setEditing(last.id);
  };
  return (
    <main class="chat">
      <div class="scroller" ref={view}>
        <div class="messages" role="log" aria-label="Conversation" aria-live="off">
          {conversation.messages.length === 0 && <Welcome />}
          {conversation.messages.map((message, index) =>
            message.role === "user" ? (
              <Question
                key={message.id}
                conversation={conversation}
                message={message}
                isEditing={editing === message.id}
                setEditing={setEditing}
              />
            ) : (
              <Answer
                key={message.id}
                conversation={conversation}
                message={message}
                isLast={index === conversation.messages.length - 1}
              />
            ),
          )}
        </div>
      </div>
      {isAway && <IconButton name="down" label="To the end" class="to-end" onClick={toEnd} />}
      <Composer key={conversation.id} conversation={conversation} editLast={editLast} />
    </main>
  );
}

/** Keeps the end in sight while an answer grows, unless the reader has scrolled away from it. */
function useFollowing(id: string, content: unknown) {
  const view = useRef<HTMLDivElement>(null);
  const follows = useRef(true);
  const [isAway, setAway] = useState(false);
  const toEnd = (): void => {
    const element = view.current;
    if (element) element.scrollTop = element.scrollHeight;
  };
  useEffect(() => {
    const element = view.current;
    const watch = (): void => {
      if (!element) return;
      follows.current = element.scrollHeight - element.scrollTop - element.clientHeight < NEAR_PX;
      setAway(!follows.current);
    };
    element?.addEventListener("scroll", watch, { passive: true });
    return () => element?.removeEventListener("scroll", watch);
  }, []);
  useLayoutEffect(() => {
    follows.current = true;
    toEnd();
  }, [id]);
  useLayoutEffect(() => {
    if (follows.current) toEnd();
  }, [content]);
  return { view, isAway, toEnd };
}
