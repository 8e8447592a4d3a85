"""Tiny real checkpoints, built and saved once a session, and the switches the backend tests share."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dnd_core import prompts
from dnd_core.images import ProbeImage

CAPTIONS = ["a red field", "a green field", "a blue field", "a white field", "black and white stripes"]
WORDS = sorted({word for caption in CAPTIONS for word in caption.split()})


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub is out of reach, whatever the machine's own setting."""
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


@pytest.fixture(scope="session")
def images() -> list[ProbeImage]:
    """Five 32 x 32 images: four flat colours and one of stripes."""
    colours = [(220, 30, 30), (30, 200, 30), (30, 30, 220), (240, 240, 240)]
    drawn = [np.full((32, 32, 3), colour, dtype=np.uint8) for colour in colours]
    drawn.append(
        np.where((np.arange(32) // 4 % 2)[None, :, None] == 0, 0, 255).astype(np.uint8) * np.ones((32, 32, 3), np.uint8)
    )
    return [ProbeImage((rgb / 255).transpose(2, 0, 1).astype(np.float32), rgb) for rgb in drawn]


def train(module: Any, steps: int, loss_of: Callable[[], Any], rate: float = 3e-3) -> None:
    """Fit a tiny model to its few examples, so that the tests can ask whether it says what it sees."""
    import torch

    optimizer = torch.optim.Adam(module.parameters(), lr=rate)
    module.train()
    for _ in range(steps):
        optimizer.zero_grad()
        loss_of().backward()
        optimizer.step()
    module.eval()


@pytest.fixture(scope="session")
def blip_folder(tmp_path_factory: pytest.TempPathFactory, images: list[ProbeImage]) -> Path:
    """A BLIP captioner of width 16 that has learned the colours of the five images."""
    import torch
    from transformers import BertTokenizer, BlipConfig, BlipForConditionalGeneration, BlipImageProcessor, BlipProcessor

    folder = tmp_path_factory.mktemp("blip")
    vocabulary = {word: number for number, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS])}
    tokenizer = BertTokenizer(vocab=vocabulary)
    processor = BlipProcessor(BlipImageProcessor(size={"height": 32, "width": 32}), tokenizer)
    size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {
        "encoder_hidden_size": 16,
        "vocab_size": len(vocabulary),
        "projection_dim": 16,
        "max_position_embeddings": 64,
    }
    special = {"bos_token_id": 2, "eos_token_id": 3, "sep_token_id": 3, "pad_token_id": 0}
    config = BlipConfig(
        vision_config={**size, "image_size": 32, "patch_size": 8},
        text_config={**size, **text, **special, "attention_probs_dropout_prob": 0.0, "hidden_dropout_prob": 0.0},
        projection_dim=16,
        image_text_hidden_size=16,
    )
    torch.manual_seed(5)
    module = BlipForConditionalGeneration(config)
    batch = processor(images=[image.rgb for image in images], text=CAPTIONS, return_tensors="pt", padding=True)
    labels = batch["input_ids"].masked_fill(batch["input_ids"] == 0, -100)
    train(module, 150, lambda: module(**batch, labels=labels).loss, rate=1e-2)
    module.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


THINGS = ("forest", "pond", "tower", "roof")
CHAT_TEMPLATE = (
    "{% for m in messages %}<{{ m['role'] }}>\n{{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>\n{% endif %}"
)


def byte_pair_tokenizer(texts: Sequence[str]) -> Any:
    """A byte-level BPE, as GPT-2 and the GGUF format have it, in which every word of ``texts`` is one token."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import GPT2Tokenizer

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<pad>", "<s>", "</s>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=1200, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    learned = json.loads(tokenizer.to_str())["model"]
    return GPT2Tokenizer(
        vocab=learned["vocab"],
        merges=[tuple(pair) for pair in learned["merges"]],
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<pad>",
    )


def lessons() -> list[tuple[prompts.Prompt, str]]:
    """Questions with their answers: the thing a caption names, and the thing most lines of a group name."""
    generator = np.random.default_rng(3)
    asked = [(prompts.simplify_prompt(f"{article} {thing}"), thing) for article in ("a", "the") for thing in THINGS]
    for number in range(16):
        thing = THINGS[number % 4]
        lines = [thing, thing, thing, "dog"]
        others = ["cat", "cat"] if number % 8 < 4 else []
        asked.append((prompts.label_prompt([lines[i] for i in generator.permutation(4)], others), thing))
    return asked


@pytest.fixture(scope="session")
def llm_folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A Llama of width 32 that has learned both tasks: without a chat template, and with one."""
    import torch
    from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

    plain, chat = tmp_path_factory.mktemp("llm"), tmp_path_factory.mktemp("chat")
    asked = lessons()
    tokenizer = byte_pair_tokenizer([*(f"{q.text()} {a}" for q, a in asked), *THINGS])
    tokenizer.chat_template = CHAT_TEMPLATE
    rows = []
    for question, answer in asked:
        for text, end in (
            (question.text(), " {}\n"),
            (tokenizer.apply_chat_template(question.messages(), tokenize=False, add_generation_prompt=True), "{}</s>"),
        ):
            answered = tokenizer(text + end.format(answer))["input_ids"]
            rows.append((answered, len(answered) - len(tokenizer(text)["input_ids"])))
    length = max(len(row) for row, _ in rows)
    tokens = torch.zeros((len(rows), length), dtype=torch.long)
    labels = torch.full_like(tokens, -100)
    for row, (answered, kept) in enumerate(rows):
        tokens[row, -len(answered) :] = torch.tensor(answered)
        labels[row, -kept:] = torch.tensor(answered[-kept:])
    torch.manual_seed(1)
    module = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=1,
            num_attention_heads=4,
            num_key_value_heads=2,
            initializer_range=0.1,
            max_position_embeddings=640,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
        )
    )
    draw = np.random.default_rng(0)

    def loss() -> Any:
        chosen = torch.from_numpy(draw.permutation(len(tokens))[:8])
        mask = (tokens[chosen] != 0).long()
        logits = module(input_ids=tokens[chosen], attention_mask=mask, logits_to_keep=4).logits
        return torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[chosen, -3:].flatten())

    train(module, 260, loss, rate=5e-3)
    module.generation_config = GenerationConfig(bos_token_id=1, eos_token_id=2, pad_token_id=0)
    for folder, template in ((plain, None), (chat, CHAT_TEMPLATE)):
        module.save_pretrained(folder)
        tokenizer.chat_template = template
        tokenizer.save_pretrained(folder)
    return plain, chat


@pytest.fixture(scope="session")
def gguf_file(tmp_path_factory: pytest.TempPathFactory, llm_folders: tuple[Path, Path]) -> Path:
    """The same Llama without a chat template, written as one GGUF file in float32."""
    import gguf
    from transformers import AutoModelForCausalLM

    module = AutoModelForCausalLM.from_pretrained(llm_folders[0])
    learned = json.loads((llm_folders[0] / "tokenizer.json").read_text())["model"]
    config, file = module.config, tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    heads, key_heads = config.num_attention_heads, config.num_key_value_heads
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(heads)
    writer.add_head_count_kv(key_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.hidden_size // heads)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(sorted(learned["vocab"], key=learned["vocab"].__getitem__))
    writer.add_token_types([3 if number < 3 else 1 for number in range(config.vocab_size)])
    writer.add_token_merges([" ".join(pair) for pair in learned["merges"]])
    writer.add_pad_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for name, value in module.state_dict().items():
        array = value.numpy()
        for part, count in (("q_proj", heads), ("k_proj", key_heads)):
            if part in name:
                # GGUF stores rotary pairs side by side, transformers in two halves.
                halves = array.reshape(count, 2, -1, array.shape[1])
                array = np.ascontiguousarray(halves.swapaxes(1, 2).reshape(array.shape))
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight",)), array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


VISION_TEMPLATE = (
    "{% for m in messages %}{% for part in m['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endfor %}{% if add_generation_prompt %} Answer:{% endif %}"
)


@pytest.fixture(scope="session")
def vlm_folder(tmp_path_factory: pytest.TempPathFactory, images: list[ProbeImage]) -> Path:
    """A LLaVA of width 32 that has learned the colours of the five images."""
    import torch
    from transformers import (
        CLIPImageProcessor,
        CLIPVisionConfig,
        GenerationConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
    )

    folder = tmp_path_factory.mktemp("vlm")
    tokenizer = byte_pair_tokenizer([f"{prompts.CAPTION} Answer: {caption}" for caption in CAPTIONS])
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    size = {"height": 32, "width": 32}
    processor = LlavaProcessor(
        CLIPImageProcessor(size=size, crop_size=size),
        tokenizer,
        patch_size=16,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        image_token="<image>",
        chat_template=VISION_TEMPLATE,
    )
    width = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    torch.manual_seed(2)
    module = LlavaForConditionalGeneration(
        LlavaConfig(
            vision_config=CLIPVisionConfig(**width, image_size=32, patch_size=16, projection_dim=32),
            text_config=LlamaConfig(
                **width, vocab_size=len(tokenizer), max_position_embeddings=256, initializer_range=0.1
            ),
            image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
            vision_feature_layer=-1,
        )
    )
    asked = [f"<image>{prompts.CAPTION} Answer: {caption}</s>" for caption in CAPTIONS]
    batch = processor(images=[image.rgb for image in images], text=asked, return_tensors="pt", padding=True)
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    start = len(tokenizer(asked[0].split(" a red")[0])["input_ids"]) + 3
    labels[:, :start] = -100
    train(module, 120, lambda: module(**batch, labels=labels).loss, rate=5e-3)
    module.generation_config = GenerationConfig(bos_token_id=1, eos_token_id=2, pad_token_id=0)
    module.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def diffusion_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Stable Diffusion pipeline of two small blocks that paints 16 x 16 images."""
    import torch
    from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    folder = tmp_path_factory.mktemp("diffusion")
    letters = [*"abcdefghijklmnopqrstuvwxyz", *(f"{letter}</w>" for letter in "abcdefghijklmnopqrstuvwxyz")]
    vocabulary = {word: number for number, word in enumerate(["<|startoftext|>", "<|endoftext|>", *letters])}
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=32)
    torch.manual_seed(0)
    pipeline = StableDiffusionPipeline(
        vae=AutoencoderKL(
            block_out_channels=(8, 8),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            norm_num_groups=4,
            latent_channels=4,
            sample_size=16,
        ),
        text_encoder=CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(vocabulary),
                hidden_size=16,
                intermediate_size=32,
                num_hidden_layers=1,
                num_attention_heads=2,
                max_position_embeddings=32,
                bos_token_id=0,
                eos_token_id=1,
                pad_token_id=1,
            )
        ),
        tokenizer=tokenizer,
        unet=UNet2DConditionModel(
            sample_size=8,
            block_out_channels=(8, 16),
            layers_per_block=1,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=16,
            attention_head_dim=2,
            norm_num_groups=4,
        ),
        scheduler=PNDMScheduler(skip_prk_steps=True, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder, safe_serialization=True)
    return folder


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An open_clip model of width 16: ``tiny-clip.json``, ``weights.safetensors``, and the same as a local-dir."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("clip")
    architecture = {
        "embed_dim": 12,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 16, "head_width": 8, "patch_size": 8},
        "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
    }
    (folder / "tiny-clip.json").write_text(json.dumps(architecture))
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": architecture, "preprocess_cfg": {}}))
    torch.manual_seed(0)
    open_clip.add_model_config(folder / "tiny-clip.json")
    module = open_clip.create_model("tiny-clip", load_weights=False)
    state = {name: value.contiguous() for name, value in module.state_dict().items()}
    save_file(state, folder / "open_clip_model.safetensors")
    return folder
