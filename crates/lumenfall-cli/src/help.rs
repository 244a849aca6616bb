//! The texts of `lumenfall --help` and `lumenfall --version`.

pub(crate) const VERSION: &str = concat!("lumenfall ", env!("CARGO_PKG_VERSION"), "\n");

pub(crate) const TEXT: &str = "\
Generates and edits images with Stable Diffusion 3.5 Medium.

Usage:
  lumenfall generate PROMPT [OPTIONS]               Generate images from a prompt
  lumenfall edit SOURCE --prompt PROMPT [OPTIONS]   Change an image
  lumenfall repeat IMAGE [OPTIONS]                  Generate the image of a local model again, from the parameters in its file
  lumenfall estimate PROMPT [OPTIONS]               Show the price of `generate` with the same options
  lumenfall models [OPTIONS]                        List the models, or describe the one of --model
  lumenfall devices                                 List the GPUs

Where the images are generated:
  (default)                  On this computer, with a small demonstration model of shapes and letters
  --model PATH               On this computer, with the model at PATH: a folder, or a safetensors or GGUF file
  --device DEVICE            With --model: auto (the default), cpu, or the number or name of a GPU
  --lora FILE[=STRENGTH]     Use a LoRA with the model on this computer; can be repeated
  --prompt-cache FOLDER      With --model: store encoded prompts in FOLDER, so that T5 is read once for each prompt
  --remote                   Through the Lumenfall gateway, with the API key in LUMENFALL_API_KEY
  --base-url URL             Through another OpenAI-compatible server; implies --remote
  --without-key              Send no API key

Request (not for repeat):
  --size SIZE                Pixels such as 1024x1024, or an aspect ratio such as 16:9
  --aspect-ratio RATIO       Shape of the image, such as 16:9
  --resolution TIER          Scale of the image, such as 1K
  --n NUMBER                 Number of images
  --seed NUMBER              Start of the random numbers: the same seed generates the same image
  --steps NUMBER             Number of denoising steps
  --guidance NUMBER          Scale of classifier-free guidance; 1 turns it off
  --negative-prompt TEXT     What the image must not show
  --skip-layer-guidance      Use skip layer guidance
  --provider NAME            Run the request at this provider of the gateway
  --user NAME                Your name for the end user
  --local NAME=VALUE         An option of the local backend, as JSON or text, such as sampler=dpmpp_2m
  --extra NAME=VALUE         Any other parameter, as JSON or text
  --timeout SECONDS          Give up after this time

Only for edit:
  --prompt TEXT              How to change the image
  --mask FILE                PNG of the same size: its fully transparent pixels may change
  --strength NUMBER          How much the image may change, from 0 (hardly) to 1 (entirely)
  SOURCE can be repeated if the server supports several images.

Only for repeat, if the image was edited:
  --source FILE              The image that was edited
  --mask FILE                The mask, if there was one

Output:
  -o, --output FILE          Save the image to FILE. Its extension selects the file format, unless
                             --output-format does. Several images are numbered: FILE-1.png, FILE-2.png.
                             The default is the first free name of lumenfall-1.png, lumenfall-2.png, ...
  --output-format FORMAT     png, jpeg, gif, webp or avif
  --output-compression NUMBER  Compression of a lossy format, 0 to 100
  --json                     Print one JSON object to standard output
  -h, --help                 Show this help
  -V, --version              Show the version

Standard output receives only the paths of the images (or the estimate, the models, the GPUs, the JSON object).
Progress and messages are written to standard error.

Exit codes:
  0    success
  2    invalid command line or request, or an unsupported option
  3    missing or rejected API key, or another configuration error
  4    insufficient balance
  5    refused by the content policy
  6    the model or another object does not exist
  7    rate limited
  8    connection failed, timeout, or the server failed
  9    a file or the model cannot be read or written
  1    any other error
  130  interrupted with Ctrl-C
";
